"""A compact network for small gray faces, made for the shortest time to an accuracy (experiments/fer2013_fast.py).

Adapts the fastest recipes for small pictures to 48 pixels: a stem that takes patches of one gray channel,
few wide layers, full resolution in few layers, pooling by maxima, a classifier without a bias (Jordan, "94 % on
CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498; Page, "How to train your ResNet", 2018). The loss is
the baseline's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.methods.baseline import loss
from fer_jax.methods.method import Classifier, Method
from fer_jax.nn.convolution import Conv
from fer_jax.nn.linear import Linear
from fer_jax.nn.normalization import BatchNorm
from fer_jax.nn.pooling import global_average_pool, global_max_pool, max_pool

STEMS = {"patches": (4, 4), "conv": (3, 3)}  # kernels; a stride of 2 and a zero on each side halve the map
HEADS = {"max": global_max_pool, "mean": global_average_pool}


class Stage(nn.Module):
    """Halves the map, then convolves on it: [B, H, W, C] -> [B, H / 2, W / 2, width].

    Attributes:
        width: output channels.
        convolutions: 3x3 ones, the first of which comes before the map is halved.
        pool: halve by the maximum of 2x2 (the first convolution sees the whole map), else by a stride of 2.
        dtype: of the computation.
    """

    width: int
    convolutions: int = 2
    pool: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        for number in range(self.convolutions):
            halves = number == 0
            stride = 2 if halves and not self.pool else 1
            x = Conv(self.width, (3, 3), stride, dtype=self.dtype, name=f"conv{number}")(x)
            if halves and self.pool:
                x = max_pool(x, window=2, stride=2, padding=0)
            x = nn.gelu(BatchNorm(dtype=self.dtype, name=f"bn{number}")(x, train=train))
        return x


class Model(Classifier):
    """Patch stem, stages, global maximum, linear classifier without a bias.

    Attributes:
        num_classes: C.
        stem: 'patches' of 4x4 or a 3x3 'conv', one of STEMS; both at a stride of 2.
        stem_width: channels of the stem.
        widths: channels of the stages.
        strided: number of stages, counted from the last, that halve the map by a stride; earlier ones use pooling.
        convolutions: number of convolutions in each stage.
        head: how each channel of the last map is pooled, one of HEADS.
        dropout: rate on the features while training (needs the RNG stream 'dropout').
        dtype: of the trunk's computation; logits are float32.
    """

    num_classes: int
    stem: str = "patches"
    stem_width: int = 32
    widths: Sequence[int] = (64, 128, 256)
    strided: int = 0
    convolutions: int = 2
    head: str = "max"
    dropout: float = 0.0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.classifier = Linear(self.num_classes, use_bias=False)

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B P"], dict[str, Any]]:
        """Returns (features [B, P], aux with the features before dropout and the map before pooling)."""
        gray = jnp.mean(batch["image"], axis=-1, keepdims=True).astype(self.dtype)
        norm = functools.partial(BatchNorm, dtype=self.dtype)
        x = Conv(self.stem_width, STEMS[self.stem], 2, ((1, 1), (1, 1)), dtype=self.dtype, name="stem")(gray)
        x = nn.gelu(norm(name="stem_bn")(x, train=train))
        for number, width in enumerate(self.widths):
            pool = number < len(self.widths) - self.strided
            stage = Stage(width, self.convolutions, pool, dtype=self.dtype, name=f"stage{number}")
            x = stage(x, train=train)
        features = HEADS[self.head](x)
        dropped = nn.Dropout(self.dropout, deterministic=not train)(features)
        return dropped, {"features": features, "maps": {"last": x}}


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"cross_entropy": 1.0},
    published={},  # nobody has published weights of it
)
