"""ResNet (He et al. 2015, arXiv 1512.03385) in torchvision's layout, for faces of any size.

Names follow torchvision's, so that published weights can be read name by name: `layer1.0.conv1` is `layer1_0/conv1`
and `layer2.0.downsample.0` is `layer2_0/downsample_conv`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from fer_jax.errors import UserError
from fer_jax.nn.convolution import Conv
from fer_jax.nn.normalization import BatchNorm
from fer_jax.nn.pooling import global_average_pool, max_pool

STEMS = ("imagenet", "small", "caffe")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, H, W, C] -> [B, H / stride, W / stride, width]."""

    width: int
    stride: int = 1
    dtype: Any = jnp.float32
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        norm = functools.partial(BatchNorm, dtype=self.dtype)
        y = Conv(self.width, (3, 3), self.stride, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train=train, mask=mask))
        y = Conv(self.width, (3, 3), dtype=self.dtype, name="conv2")(y)
        y = norm(name="bn2")(y, train=train, mask=mask)
        return nn.relu(y + shortcut(x, self.width, self.stride, train, self.dtype, mask))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions: [B, H, W, C] -> [B, H / stride, W / stride, 4 width].

    With `stride_first` the stride is that of the first convolution.
    """

    width: int
    stride: int = 1
    stride_first: bool = False
    dtype: Any = jnp.float32
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        norm = functools.partial(BatchNorm, dtype=self.dtype)
        out = self.width * self.expansion
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        y = Conv(self.width, (1, 1), first, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(norm(name="bn1")(y, train=train, mask=mask))
        y = Conv(self.width, (3, 3), second, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y, train=train, mask=mask))
        y = Conv(out, (1, 1), dtype=self.dtype, name="conv3")(y)
        y = norm(name="bn3")(y, train=train, mask=mask)
        return nn.relu(y + shortcut(x, out, self.stride, train, self.dtype, mask))


def shortcut(
    x: jax.Array, features: int, stride: int, train: bool, dtype: Any, mask: jax.Array | None = None
) -> jax.Array:
    """Returns x, or a strided 1x1 convolution of it if the shape changes (option B of the paper)."""
    if stride == 1 and x.shape[-1] == features:
        return x
    y = Conv(features, (1, 1), stride, dtype=dtype, name="downsample_conv")(x)
    return BatchNorm(dtype=dtype, name="downsample_bn")(y, train=train, mask=mask)


class ResNet(nn.Module):
    """A residual network without its classifier.

    Attributes:
        stage_sizes: blocks per stage.
        block: BasicBlock or Bottleneck.
        width: channels of the first stage; each stage doubles it.
        stem: 'imagenet' (7x7 stride 2, then 3x3 max-pool stride 2), 'small' (3x3 stride 1 without a pool, for images
            of about 48 pixels, which the other stem reduces to a 2x2 map), or 'caffe' (as 'imagenet' with a pool that
            begins at the corner and bottlenecks with the stride in their first convolution, as VGGFace2's ResNet-50).
        dtype: of the computation; parameters and batch statistics are float32.

    Called with images, `train` and optionally `mask`, bool [B]; images outside it do not enter the batch statistics.
    Returns (features [B, width * 8 * expansion], maps), where maps contains the outputs 'layer1' ... 'layer4',
    the last one also as 'last'.
    """

    stage_sizes: Sequence[int]
    block: type[BasicBlock] | type[Bottleneck] = BasicBlock
    width: int = 64
    stem: str = "imagenet"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.stem not in STEMS:
            raise UserError(f"config.model.stem: there is no stem '{self.stem}': give one of {', '.join(STEMS)}")
        norm = functools.partial(BatchNorm, dtype=self.dtype)
        kernel, stride = ((3, 3), 1) if self.stem == "small" else ((7, 7), 2)
        x = Conv(self.width, kernel, stride, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(norm(name="bn1")(x, train=train, mask=mask))
        if self.stem == "imagenet":
            x = max_pool(x, window=3, stride=2, padding=1)
        elif self.stem == "caffe":
            # PyTorch's ceil_mode: the last window may reach over the edge. Nothing here is below 0.
            x = jnp.pad(x, ((0, 0), *((0, (side - 3) % 2) for side in x.shape[1:3]), (0, 0)))
            x = max_pool(x, window=3, stride=2, padding=0)
        block = self.block
        if self.stem == "caffe" and block is Bottleneck:
            block = functools.partial(Bottleneck, stride_first=True)
        maps = {}
        for i, size in enumerate(self.stage_sizes, start=1):
            for j in range(size):
                stride = 2 if i > 1 and j == 0 else 1
                width = self.width * 2 ** (i - 1)
                x = block(width, stride, dtype=self.dtype, name=f"layer{i}_{j}")(x, train=train, mask=mask)
            maps[f"layer{i}"] = x
        return global_average_pool(x), maps | {"last": x}


ResNet10 = functools.partial(ResNet, stage_sizes=(1, 1, 1, 1), block=BasicBlock)
ResNet18 = functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), block=Bottleneck)
