"""The honest baseline: a ResNet and one linear layer, trained like every other method here."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.methods.losses import classification_loss
from fer_jax.methods.method import Batch, Classifier, Clock, Method, Outputs
from fer_jax.nn.linear import Linear
from fer_jax.nn.trunk import TrunkFactory, resnet


class Model(Classifier):
    """ResNet trunk, dropout, linear classifier.

    Attributes:
        num_classes: C.
        depth: layers of the ResNet (`fer_jax.nn.resnet`).
        width: channels of its first stage.
        stem: 'imagenet', 'small' for images of about 48 pixels, or 'caffe' (VGGFace2's).
        dropout: rate on the features while training (needs the RNG stream 'dropout').
        backbone: a factory called with dtype and name, used instead of the ResNet.
        dtype: of the trunk's computation; logits are float32.
    """

    num_classes: int
    depth: int = 18
    width: int = 64
    stem: str = "imagenet"
    dropout: float = 0.0
    backbone: TrunkFactory | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.classifier = Linear(self.num_classes)

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B P"], dict[str, Any]]:
        """Returns (features [B, P], aux with the features before dropout and the trunk's maps)."""
        if self.backbone is None:
            trunk = resnet(self.depth, width=self.width, stem=self.stem, dtype=self.dtype, name="trunk")
        else:
            trunk = self.backbone(dtype=self.dtype, name="trunk")
        features, maps = trunk(batch["image"].astype(self.dtype), train=train)
        features = features.astype(jnp.float32)
        dropped = nn.Dropout(self.dropout, deterministic=not train)(features)
        return dropped, {"features": features, "maps": maps}


def loss(
    outputs: Outputs,
    batch: Batch,
    clock: Clock,
    *,
    classification: str = "cross_entropy",
) -> dict[str, Float[Array, "B"]]:
    """The classification term (see `losses`).

    Args:
        outputs: of the views; the first one counts.
        batch: reads target.
        clock: not read.
        classification: 'cross_entropy', or 'multi_target' with that rule of data.target.
    """
    del clock
    return {"cross_entropy": classification_loss(outputs[0].logits, batch["target"], classification)}


METHOD = Method(model=Model, loss=loss, weights={"cross_entropy": 1.0})
