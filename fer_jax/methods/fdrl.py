"""FDRL: Feature Decomposition and Reconstruction Learning (Ruan et al., CVPR 2021, arXiv 2104.05160).

A basic feature x is decomposed by M parallel layers (FDN) into latent features l_j shared by all
expressions. Intra-RM gives each one an importance alpha_j, Inter-RM lets them exchange messages over a graph,
and their weighted sum y is classified by one linear layer (EPN). Three further losses make the latent
features compact, all of them used, and their importances alike within a class.

Choices where the sources are silent or disagree:
  * alpha, a sum of D sigmoids, starts near D/2 = 64 while the balance loss wants 1/M: see `ALPHA_MODES`.
  * Centers follow the batches as in center loss (Wen et al., ECCV 2016) instead of being frozen random
    points, and start from the first batch's means: l and alpha are never negative, N(0, 1) often is.
  * y mixes f with fhat, as in the paper; a public reimplementation mixes the messages g with fhat.
  * The balance loss does not grow with the batch, as it does in a public reimplementation (a broadcast).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Int

from fer_jax.errors import UserError
from fer_jax.methods.losses import classification_loss
from fer_jax.methods.method import Batch, Classifier, Clock, Method, Outputs
from fer_jax.nn.linear import Linear, ParallelLinear, full_einsum, full_matmul
from fer_jax.nn.trunk import TrunkFactory, trunk_of

# literal       alpha_j = ||s_j||_1, the paper's text: about 64 at the start, which makes L_B 575.
# literal_bias  the same with the bias of W_s such that alpha_j starts near 1/M: the closest sane reading.
# mean          alpha_j = ||s_j||_1 / D, about 0.5 at the start.
# simplex       ||s_j||_1 divided by its sum over j: the balance loss then only balances.
ALPHA_MODES = ("literal", "literal_bias", "mean", "simplex")
EDGES = ("euclid", "cosine", "dot", "ones")
MODULES = ("none", "wide", "fdn", "intra", "inter", "both")
SATURATED = 0.99  # an edge weight above this is as good as constant


class FDN(nn.Module):
    """Feature Decomposition Network: l_j = relu(W_dj^T x)."""

    num_features: int
    feature_dim: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B P"]) -> Float[Array, "B M D"]:
        fc = ParallelLinear(self.num_features, self.feature_dim, self.use_bias, dtype=self.dtype, name="fc")
        return nn.relu(fc(x)).astype(jnp.float32)


class IntraRM(nn.Module):
    """Intra-feature Relation Modeling: importances alpha_j = ||sigmoid(W_sj^T l_j)||_1."""

    alpha: str
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latent: Float[Array, "B M D"]) -> tuple[Float[Array, "B M"], Float[Array, "B M D"]]:
        """Returns (alpha [B, M], intra-aware features f [B, M, D])."""
        m, d = latent.shape[1:]
        bias_init = None
        if self.alpha == "literal_bias":
            bias_init = nn.initializers.constant(-math.log(m * d - 1))  # sigmoid(b) = 1 / (M D)
        fc = ParallelLinear(m, d, self.use_bias, bias_init=bias_init, dtype=self.dtype, name="fc")
        s = nn.sigmoid(fc(latent).astype(jnp.float32))  # s_j = sigmoid(W_sj^T l_j)
        alpha = jnp.mean(s, axis=-1) if self.alpha == "mean" else jnp.sum(s, axis=-1)  # s > 0: the L1 norm
        if self.alpha == "simplex":
            alpha = alpha / jnp.sum(alpha, axis=-1, keepdims=True)
        return alpha, alpha[..., None] * latent  # f_j = alpha_j l_j


class InterRM(nn.Module):
    """Inter-feature Relation Modeling: messages g_j = relu(W_ej^T f_j) mixed over a complete graph."""

    edge: str = "euclid"
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, intra: Float[Array, "B M D"]
    ) -> tuple[Float[Array, "B M D"], Float[Array, "B M M"], Float[Array, "B M D"]]:
        """Returns (messages g, edge weights omega, inter-aware features fhat)."""
        m, d = intra.shape[1:]
        fc = ParallelLinear(m, d, self.use_bias, dtype=self.dtype, name="fc")
        g = nn.relu(fc(intra)).astype(jnp.float32)
        omega = relations(g, self.edge)
        fhat = full_einsum("bjm,bmd->bjd", omega, g)  # fhat_j = sum_m omega_jm g_m
        return g, omega, fhat


class EPN(nn.Module):
    """Expression Prediction Network: one linear layer on the expression feature y."""

    num_classes: int

    @nn.compact
    def __call__(self, y: Float[Array, "B D"]) -> Float[Array, "B C"]:
        return Linear(self.num_classes, name="fc")(y)


class Model(Classifier):
    """FDRL on a ResNet.

    Attributes:
        num_classes: C.
        num_features: M, the number of latent features.
        feature_dim: D, the length of each.
        delta: share of the intra-aware features in y; 1 leaves Inter-RM out.
        alpha: how importances are computed, one of ALPHA_MODES.
        edge: the weight between two features, one of EDGES; 'euclid' is the paper's, 'ones' a constant graph, the
            control for the learned one.
        modules: which modules to use, one of MODULES: 'none' is ResNet and EPN, 'fdn' adds the decomposition, 'intra'
            or 'inter' one relation module to it, 'both' is FDRL. 'wide' is the control: one fully connected layer
            as wide as the decomposition, classified as a whole.
        use_bias: whether the layers of FDN, Intra-RM and Inter-RM have biases.
        gamma: rate at which the centers move toward the means of the batches.
        depth: layers of the ResNet (`fer_jax.nn.resnet`).
        width: channels of its first stage.
        stem: 'imagenet', 'small' for images of about 48 pixels, or 'caffe' (VGGFace2's).
        backbone: a factory called with dtype and name, used instead of the ResNet.
        dtype: of the products; distances, importances, centers and logits are float32.

    The collection 'centers' holds compactness [M, D], importance [C, M] and whether a batch has set them.
    """

    num_classes: int
    num_features: int = 9
    feature_dim: int = 128
    delta: float = 0.5
    alpha: str = "mean"
    edge: str = "euclid"
    modules: str = "both"
    use_bias: bool = True
    gamma: float = 0.5
    depth: int = 18
    width: int = 64
    stem: str = "imagenet"
    backbone: TrunkFactory | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.classifier = EPN(self.num_classes, name="epn")

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B P"], dict[str, Any]]:
        """Returns (what EPN classifies: y, or as `modules` says x or all l_j in a row, aux).

        aux has features x [B, P], the trunk's maps and, as far as `modules` has them, latent [B, M, D],
        importance [B, M], intra, messages and inter [B, M, D], omega [B, M, M], expression y [B, D] and the
        centers that the losses refer to (latent_centers [M, D], importance_centers [C, M]).

        An optional batch['feature_mask'] [M] or [B, M] multiplies the latent features: a zero shows what the classifier
        does without that feature. Training needs batch['target'] for the class centers.
        """
        self._check()
        x, maps = trunk_of(self)(batch["image"].astype(self.dtype), train=train)
        aux: dict[str, Any] = {"features": x.astype(jnp.float32), "maps": maps}
        if self.modules == "none":
            return aux["features"], aux

        fdn = FDN(self.num_features, self.feature_dim, self.use_bias, self.dtype, name="fdn")
        latent = fdn(x)  # l_j
        if "feature_mask" in batch:
            latent = latent * batch["feature_mask"].astype(jnp.float32)[..., None]
        aux["latent"] = latent
        if self.modules == "wide":
            return latent.reshape(latent.shape[0], -1), aux

        f = latent
        if self.modules in ("intra", "both"):
            alpha, f = IntraRM(self.alpha, self.use_bias, self.dtype, name="intra_rm")(latent)
            aux.update(importance=alpha, intra=f)

        per_feature = f
        if self.modules in ("inter", "both"):
            g, omega, fhat = InterRM(self.edge, self.use_bias, self.dtype, name="inter_rm")(f)
            aux.update(messages=g, omega=omega, inter=fhat)
            per_feature = self.delta * f + (1 - self.delta) * fhat  # y_j

        y = jnp.sum(per_feature, axis=1)  # y = sum_j y_j
        aux["expression"] = y
        aux.update(self._centers(latent, aux.get("importance"), batch, train=train))
        return y, aux

    def _centers(
        self,
        latent: Float[Array, "B M D"],
        alpha: Float[Array, "B M"] | None,
        batch: dict[str, Array],
        *,
        train: bool,
    ) -> dict[str, Array]:
        """The centers for this batch's losses; when training, moves the stored ones afterwards."""
        m, d, classes = self.num_features, self.feature_dim, self.num_classes
        compactness = self.variable("centers", "compactness", jnp.zeros, (m, d))
        importance = self.variable("centers", "importance", jnp.zeros, (classes, m))
        initialized = self.variable("centers", "initialized", jnp.zeros, (), jnp.bool_)
        if not train or self.is_initializing():
            return {"latent_centers": compactness.value, "importance_centers": importance.value}

        latent = stop_gradient(latent)
        # Without Intra-RM every feature counts the same; the class centers are then unused.
        alpha = jnp.ones(latent.shape[:2], jnp.float32) if alpha is None else stop_gradient(alpha)
        mask = batch["mask"]
        known = initialized.value
        first_latent = masked_mean(latent, mask)
        first_alpha = jnp.broadcast_to(masked_mean(alpha, mask), (classes, m))
        c = jnp.where(known, compactness.value, first_latent)
        w = jnp.where(known, importance.value, first_alpha)
        compactness.value = move_centers(c, latent, mask, self.gamma)
        importance.value = move_class_centers(w, alpha, class_of(batch), mask, self.gamma)
        initialized.value = jnp.ones((), jnp.bool_)
        return {"latent_centers": c, "importance_centers": w}

    def _check(self) -> None:
        if self.alpha == "literal_bias" and not self.use_bias:
            raise UserError("model.alpha = 'literal_bias' needs model.use_bias = True")


def relations(g: Float[Array, "B M D"], edge: str) -> Float[Array, "B M M"]:
    """Edge weights omega_jm = tanh(S(g_j, g_m)) for j != m, and 0 for j = m.

    S is the Euclidean distance ('euclid', the paper: unlike messages interact more), the cosine, or the dot
    product divided by sqrt(D); with 'ones' every omega is 1.
    """
    m = g.shape[1]
    if edge == "euclid":
        s = safe_norm(g[:, :, None] - g[:, None, :])
    elif edge == "cosine":
        length = safe_norm(g)
        unit = g / jnp.where(length > 0, length, 1.0)[..., None]
        s = full_einsum("bjd,bmd->bjm", unit, unit)
    elif edge == "dot":
        s = full_einsum("bjd,bmd->bjm", g, g) * g.shape[-1] ** -0.5
    else:
        s = jnp.full((len(g), m, m), jnp.inf, g.dtype)
    return jnp.tanh(s) * (1 - jnp.eye(m, dtype=g.dtype))


def safe_norm(x: Float[Array, "*S D"]) -> Float[Array, "*S"]:
    """Euclidean norm over the last axis whose gradient at 0 is 0: two dead messages must not give NaN."""
    square = jnp.sum(x * x, axis=-1)
    zero = square == 0
    # The inner `where` keeps the unused branch's infinite slope out of the gradient.
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))


def compactness(latent: Float[Array, "B M D"], centers: Float[Array, "M D"]) -> Float[Array, "B"]:
    """L_C: sum_j ||l_ij - c_j||_2^2, one center per latent feature for all classes."""
    return jnp.sum((latent - stop_gradient(centers)) ** 2, axis=(1, 2))


def balance(alpha: Float[Array, "B M"], mask: Bool[Array, "B"]) -> Float[Array, ""]:
    """L_B: ||wbar - w_u||_1 of the batch's mean importance from the uniform 1/M."""
    return jnp.sum(jnp.abs(masked_mean(alpha, mask) - 1 / alpha.shape[1]))


def distribution(alpha: Float[Array, "B M"], centers: Float[Array, "C M"], label: Int[Array, "B"]) -> Float[Array, "B"]:
    """L_D: ||w_i - w_{k_i}||_2^2 of the importances from the center of the example's class."""
    return jnp.sum((alpha - stop_gradient(centers)[label]) ** 2, axis=1)


def loss(
    outputs: Outputs,
    batch: Batch,
    clock: Clock,
    *,
    classification: str = "cross_entropy",
) -> dict[str, Float[Array, "B"]]:
    """The terms of L = L_cls + lambda_1 L_C + lambda_2 L_B + lambda_3 L_D, as far as the modules give them.

    L_B is one number per batch, given to every example. Class centers follow the largest entry of the target.

    Args:
        outputs: of the views; the first one counts.
        batch: reads target and mask.
        clock: not read.
        classification: the classification loss: 'cross_entropy', or 'multi_target' if data.target is 'multi_target'.
    """
    del clock
    logits, aux = outputs[0]
    terms = {"cross_entropy": classification_loss(logits, batch["target"], classification)}
    if "latent_centers" in aux:
        terms["compactness"] = compactness(aux["latent"], aux["latent_centers"])
    if "importance" in aux:
        alpha = aux["importance"]
        terms["balance"] = jnp.broadcast_to(balance(alpha, batch["mask"]), len(alpha))
        terms["distribution"] = distribution(alpha, aux["importance_centers"], class_of(batch))
    return terms


def monitor(logits: Float[Array, "B C"], aux: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """Numbers that show whether the relation modules learn: importances, saturated edges, distance of the centers."""
    del logits
    values = {}
    mask = batch["mask"]
    if "importance" in aux:
        alpha = masked_mean(aux["importance"], mask)
        values["alpha_mean"] = jnp.mean(alpha)
        values |= {f"alpha_{j}": alpha[j] for j in range(len(alpha))}
    m = len(aux["latent_centers"]) if "latent_centers" in aux else 1
    if "omega" in aux and m > 1:
        edges = m * (m - 1)
        omega = masked_mean(aux["omega"], mask)
        saturated = masked_mean((aux["omega"] > SATURATED).astype(jnp.float32), mask)
        values["omega_mean"] = jnp.sum(omega) / edges
        values["omega_saturated"] = jnp.sum(saturated) / edges
    if m > 1:
        c = aux["latent_centers"]
        distance = safe_norm(c[:, None] - c[None, :])
        values["center_distance_min"] = jnp.min(distance + jnp.diag(jnp.full(m, jnp.inf)))
    return values


def move_centers(
    centers: Float[Array, "M D"], latent: Float[Array, "B M D"], mask: Bool[Array, "B"], gamma: float
) -> Float[Array, "M D"]:
    """c_j <- c_j - gamma sum_i (c_j - l_ij) / (1 + N), over the N examples that are no padding."""
    weight = mask.astype(jnp.float32)
    n = jnp.sum(weight)
    return centers - gamma * (n * centers - full_einsum("b,bmd->md", weight, latent)) / (1 + n)


def move_class_centers(
    centers: Float[Array, "C M"],
    alpha: Float[Array, "B M"],
    label: Int[Array, "B"],
    mask: Bool[Array, "B"],
    gamma: float,
) -> Float[Array, "C M"]:
    """w_k <- w_k - gamma sum_{i: k_i = k} (w_k - w_i) / (1 + n_k); a class without examples stays."""
    member = jax.nn.one_hot(label, len(centers)) * mask.astype(jnp.float32)[:, None]  # [B, C]
    n = jnp.sum(member, axis=0)[:, None]
    return centers - gamma * (n * centers - full_matmul(member.T, alpha)) / (1 + n)


def class_of(batch: Batch) -> Int[Array, "B"]:
    """The class whose center an example belongs to: the largest entry of its target."""
    return jnp.argmax(batch["target"], axis=-1)


def masked_mean(x: Float[Array, "B *S"], mask: Bool[Array, "B"]) -> Float[Array, "*S"]:
    """Mean over the examples that are no padding (0 when there are none)."""
    weight = mask.astype(jnp.float32)
    return full_einsum("b,b...->...", weight, x) / jnp.maximum(jnp.sum(weight), 1.0)


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"cross_entropy": 1.0, "compactness": 1e-4, "balance": 1.0, "distribution": 1e-4},
    monitor=monitor,
    whole_batch=True,  # the balance term and the centers
    profiles={"importance": "Importance of each latent feature"},
)
