"""The honest baseline: a ResNet and one linear layer, trained like every other method here."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.labels import AFFECT
from fer_jax.methods.losses import affect_terms, classification_loss
from fer_jax.methods.method import Batch, Classifier, Clock, Config, Method, Outputs
from fer_jax.nn.linear import Linear
from fer_jax.nn.trunk import TrunkFactory, trunk_of


class Model(Classifier):
    """ResNet trunk, dropout, linear classifier.

    Attributes:
        num_classes: C.
        depth: layers of the ResNet (`fer_jax.nn.resnet`).
        width: channels of its first stage.
        stem: 'imagenet', 'small' for images of about 48 pixels, or 'caffe' (VGGFace2's).
        dropout: rate on the features while training (needs the RNG stream 'dropout').
        affect: predict valence and arousal too, where the data set has them.
        backbone: a factory called with dtype and name, used instead of the ResNet.
        dtype: of the trunk's computation; logits are float32.
    """

    num_classes: int
    depth: int = 18
    width: int = 64
    stem: str = "imagenet"
    dropout: float = 0.0
    affect: bool = False
    backbone: TrunkFactory | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.classifier = Linear(self.num_classes)

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B P"], dict[str, Any]]:
        """Returns (features [B, P], aux with the features before dropout and the trunk's maps).

        With `affect`, aux['affect'] [B, 2] has valence and arousal: a linear layer, whose tanh keeps them in -1 .. 1,
        where annotations are.
        """
        features, maps = trunk_of(self)(batch["image"].astype(self.dtype), train=train)
        features = features.astype(jnp.float32)
        dropped = nn.Dropout(self.dropout, deterministic=not train)(features)
        aux = {"features": features, "maps": maps}
        if self.affect:
            aux["affect"] = jnp.tanh(Linear(len(AFFECT), name="affect")(dropped))
        return dropped, aux


def loss(
    outputs: Outputs,
    batch: Batch,
    clock: Clock,
    *,
    classification: str = "cross_entropy",
) -> dict[str, Float[Array, "B"]]:
    """The classification term, and with aux['affect'] those of valence and arousal (see `losses`).

    Args:
        outputs: of the views; the first one counts.
        batch: reads target, and for valence and arousal what `affect_terms` reads.
        clock: not read.
        classification: the classification loss: 'cross_entropy', or 'multi_target' if data.target is 'multi_target'.
    """
    del clock
    logits, aux = outputs[0]
    terms = {"cross_entropy": classification_loss(logits, batch["target"], classification)}
    return terms | affect_terms(aux["affect"], batch) if "affect" in aux else terms


def check(config: Config) -> None:
    """Raises UserError if the batch is split, because the concordance is over the whole batch."""
    if config.model.affect and config.train.accumulate > 1:
        raise UserError(
            f"config.train.accumulate={config.train.accumulate} splits the batch, and config.model.affect=True relates "
            "its examples to each other: set it to 1"
        )


WEIGHTS = {"cross_entropy": 1.0, "affect_ccc": 1.0, "affect_squared": 0.0}
METHOD = Method(model=Model, loss=loss, weights=WEIGHTS, check=check)
