"""RUL: Relative Uncertainty Learning (Zhang, Wang and Deng, NeurIPS 2021).

Two branches describe a face: a feature mu, and the logarithm l of a variance. With sigma = mean_d exp(l_d) and a
random partner j of each example i of the batch,

    a_i = sigma_i / (sigma_i + sigma_j),    m_i = a_i mu_i + (1 - a_i) mu_j
    L = 0.5 CE(g(m_i), y_i) + 0.5 CE(g(m_i), y_j)        (the add-up loss)

The mixture must be recognized as both labels, so that the harder of the two faces has to claim the larger share: the
weight of an example grows with its uncertainty. Nothing else trains sigma. At test the logits are g(mu), and the
branch of sigma is dropped.

Choices where the paper and the authors' code differ or are silent:
  * The paper mixes examples of different labels, the code any two: `model.other_label`. The authors say that pairs of
    one label blur sigma and hardly change the accuracy (issue 6).
  * The logits of training are g(mu), and so is the training accuracy; the code prints that of the mixtures, which is
    near 50 %.
  * l is clipped before exp: a normalized l reaches +-10.
  * Under label noise the authors add SCN's relabeling (issue 4): config.objective='relabel', whose uncertain group
    follows sigma.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from fer_jax.methods.losses import classification_loss
from fer_jax.methods.method import Aux, Batch, Classifier, Clock, Method, Outputs
from fer_jax.methods.rows import mean_where
from fer_jax.nn.linear import Linear
from fer_jax.nn.normalization import BatchNorm
from fer_jax.nn.trunk import TrunkFactory, trunk_of

DRAWS = 10  # of a partner with another label
EPSILON = 2e-5
MIXINGS = ("uncertainty", "equal")
SHARES = ("halves", "weights")


class Branch(nn.Module):
    """Normalization, dropout, one layer on the whole map, normalization: [B, H, W, P] -> [B, features]."""

    features: int
    dropout: float

    @nn.compact
    def __call__(self, x: Float[Array, "B H W P"], *, train: bool) -> Float[Array, "B D"]:
        x = BatchNorm(epsilon=EPSILON, use_affine=False, name="bn1")(x, train=train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = Linear(self.features, name="fc")(x.reshape(x.shape[0], -1))
        return BatchNorm(epsilon=EPSILON, name="bn2")(x, train=train)


class Model(Classifier):
    """ResNet trunk, the branches of mu and sigma, linear classifier.

    Attributes:
        num_classes: C.
        features: length of mu and of l.
        dropout: rate in both branches
        clip: largest absolute value of l
        mixing: the weights a_i, one of MIXINGS; 'equal' is the ablation 0.5.
        other_label: whether to redraw a partner with the same label, up to ten times
        keep_sigma: whether a trained model keeps the branch of sigma, so that the report and other readers of its
            intermediates get the uncertainty of test images
        depth: layers of the ResNet (`fer_jax.nn.resnet`).
        width: channels of its first stage.
        stem: 'imagenet', or 'small' for images of about 48 pixels.
        backbone: a factory called with dtype and name, used instead of the ResNet.
        dtype: of the trunk's computation; branches and logits are float32.
    """

    num_classes: int
    features: int = 64
    dropout: float = 0.4
    clip: float = 10.0
    mixing: str = "uncertainty"
    other_label: bool = False
    keep_sigma: bool = False
    depth: int = 18
    width: int = 64
    stem: str = "imagenet"
    backbone: TrunkFactory | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.classifier = Linear(self.num_classes)

    @nn.compact
    def embed(self, batch: Batch, *, train: bool) -> tuple[Float[Array, "B D"], dict[str, Any]]:
        """Returns (mu [B, D], aux with mu as features, the trunk's maps and, with the branch, uncertainty [B, 1])."""
        maps = trunk_of(self)(batch["image"].astype(self.dtype), train=train)[1]
        last = maps["last"].astype(jnp.float32)
        mu = Branch(self.features, self.dropout, name="mu")(last, train=train)
        aux = {"features": mu, "maps": maps}
        sigma = "sigma_kept" if self.keep_sigma else "sigma"  # METHOD drops the second one at test
        if train or self.is_initializing() or self.has_variable("params", sigma):
            log_variance = Branch(self.features, self.dropout, name=sigma)(last, train=train)
            aux["uncertainty"] = uncertainty(log_variance, self.clip)[:, None]
        return mu, aux

    def __call__(self, batch: Batch, *, train: bool) -> tuple[Float[Array, "B C"], dict[str, Any]]:
        """Returns (logits g(mu) [B, C], aux); when training, aux also has weight [B], and of the mixtures mixed_logits
        and partner_target, both [B, C]."""
        mu, aux = self.embed(batch, train=train)
        logits = self.classify(mu)
        if not train:
            return logits, aux
        partner = partners(self.make_rng("noise"), batch["target"], DRAWS if self.other_label else 1)
        weight = relative_uncertainty(aux["uncertainty"][:, 0], partner)
        if self.mixing == "equal":
            weight = jnp.full_like(weight, 0.5)
        mixed = self.classify(mixture(mu, partner, weight))
        # The target, not the index: several views may be in one pass, whose outputs are split afterwards.
        theirs = batch["target"][partner]
        return logits, aux | {"partner_target": theirs, "weight": weight, "mixed_logits": mixed}


def uncertainty(log_variance: Float[Array, "B D"], clip: float) -> Float[Array, "B"]:
    """sigma_i = mean_d exp(l_id)."""
    return jnp.mean(jnp.exp(jnp.clip(log_variance, -clip, clip)), axis=-1)


def partners(key: jax.Array, target: Float[Array, "B C"], draws: int) -> Int[Array, "B"]:
    """A random permutation of the batch; the last of several draws where the earlier ones gave the same label."""
    label, rows = jnp.argmax(target, axis=-1), jnp.arange(len(target))
    orders = jnp.stack([jax.random.permutation(k, rows) for k in jax.random.split(key, draws)])
    other = (label[orders] != label[None, :]).at[-1].set(True)
    return orders[jnp.argmax(other, axis=0), rows]


def relative_uncertainty(sigma: Float[Array, "B"], partner: Int[Array, "B"]) -> Float[Array, "B"]:
    """a_i = sigma_i / (sigma_i + sigma_j)."""
    return sigma / (sigma + sigma[partner])


def mixture(mu: Float[Array, "B D"], partner: Int[Array, "B"], weight: Float[Array, "B"]) -> Float[Array, "B D"]:
    """m_i = a_i mu_i + (1 - a_i) mu_j."""
    return weight[:, None] * mu + (1.0 - weight[:, None]) * mu[partner]


def loss(
    outputs: Outputs, batch: Batch, clock: Clock, *, classification: str = "cross_entropy", shares: str = "halves"
) -> dict[str, Float[Array, "B"]]:
    """The add-up loss.

    Args:
        outputs: of the views; the first one counts.
        batch: reads target.
        clock: not read.
        classification: the classification loss: 'cross_entropy', or 'multi_target' if data.target is 'multi_target'.
        shares: weights of the two labels in the loss, one of SHARES; 'weights' is the ablation a_i and 1 - a_i (mixup).
    """
    del clock
    aux, target = outputs[0].aux, batch["target"]
    own = aux["weight"] if shares == "weights" else jnp.full_like(aux["weight"], 0.5)
    of_own = classification_loss(aux["mixed_logits"], target, classification)
    of_partner = classification_loss(aux["mixed_logits"], aux["partner_target"], classification)
    return {"add_up": own * of_own + (1.0 - own) * of_partner}


def monitor(logits: Float[Array, "B C"], aux: Aux, batch: Batch) -> dict[str, Float[Array, ""]]:
    """The accuracy of the mixtures on y_i, the mean sigma and, where the truth is known, that of wrong labels."""
    del logits
    sigma, valid = aux["uncertainty"][:, 0], batch["mask"]
    hit = jnp.argmax(aux["mixed_logits"], axis=-1) == jnp.argmax(batch["target"], axis=-1)
    values = {"mixed_accuracy": mean_where(hit.astype(jnp.float32), valid), "sigma": mean_where(sigma, valid)}
    if "clean_label" in batch:
        right = batch["clean_label"] == batch["label"]
        values["sigma_right"] = mean_where(sigma, valid & right)
        values["sigma_wrong"] = mean_where(sigma, valid & ~right)
    return values


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"add_up": 1.0},
    monitor=monitor,
    whole_batch=True,
    training_only=("sigma",),
    profiles={"uncertainty": "Uncertainty sigma"},
)
