"""VGG-16 (Simonyan and Zisserman 2014, arXiv 1409.1556): all or a contiguous range of its convolutional layers.

Layers have the names of the original release, `conv1_1` to `pool5`; the normalization after `conv1_1` is `bn1_1`.
`torchvision_index` gives torchvision's numbers of the same layers, which published weights and some papers use.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.errors import UserError
from fer_jax.nn.convolution import Conv, he_fan_out
from fer_jax.nn.normalization import BatchNorm
from fer_jax.nn.pooling import max_pool

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions; a 2x2 max-pool ends each
CHANNELS = {f"conv{s}_{i}": width for s, (width, n) in enumerate(STAGES, 1) for i in range(1, n + 1)}
LAYERS = tuple(
    name for s, (_, n) in enumerate(STAGES, 1) for name in (*(f"conv{s}_{i}" for i in range(1, n + 1)), f"pool{s}")
)
# batch: torchvision's VGG-16-BN; plain_batch: normalization without scale and bias (Caffe's)
NORMS = ("batch", "plain_batch")


class VGG(nn.Module):
    """The layers `first` to `last` of VGG-16, each convolution followed by normalization and ReLU.

    [B, H, W, C] -> [B, H / 2^pools, W / 2^pools, channels of the last layer], at least one row and column.

    Attributes:
        first, last: names from LAYERS, inclusive.
        norm: one of NORMS.
        width: channels of the first stage (64 as published); the others keep their ratio to it.
        kernel_init: of the convolutions.
        dtype: of the computation; parameters and batch statistics are float32.
    """

    first: str = "conv1_1"
    last: str = "pool5"
    norm: str = "batch"
    width: int = 64
    kernel_init: nn.initializers.Initializer = he_fan_out
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.norm not in NORMS:
            raise UserError(f"VGG has no normalization '{self.norm}': give one of {', '.join(NORMS)}")
        for name in LAYERS[LAYERS.index(self.first) : LAYERS.index(self.last) + 1]:
            if name.startswith("pool"):
                # Images below 32 pixels end in a map of one row or column, which cannot be pooled.
                x = max_pool(x, window=2, stride=2, padding=0) if min(x.shape[1:3]) > 1 else x
                continue
            x = Conv(
                CHANNELS[name] * self.width // 64,
                use_bias=True,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                name=name,
            )(x)
            bn = BatchNorm(use_affine=self.norm == "batch", dtype=self.dtype, name=name.replace("conv", "bn"))
            x = nn.relu(bn(x, train=train))
        return x


def torchvision_index(batch_norm: bool) -> dict[str, int]:
    """Returns the number of each layer in torchvision's `features`; a `bn` follows its convolution by one."""
    index, position = {}, 0
    for name in LAYERS:
        index[name] = position
        position += 1 if name.startswith("pool") else 2 + batch_norm  # convolution, (normalization,) ReLU
    return index


def cut(position: int) -> tuple[str, str]:
    """Returns the last layer before and the first after a cut at a position in torchvision's VGG-16-BN `features`.

    Raises:
        UserError: if no layer begins at this position, or if one side is empty.
    """
    begins = {number: name for name, number in torchvision_index(batch_norm=True).items() if number > 0}
    if position not in begins:
        raise UserError(f"VGG-16 cannot be cut at {position}: give one of {', '.join(map(str, begins))}")
    after = begins[position]
    return LAYERS[LAYERS.index(after) - 1], after
