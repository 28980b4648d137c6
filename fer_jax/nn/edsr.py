"""EDSR (Lim et al., CVPR Workshops 2017, arXiv 1707.02921), the 'baseline' network of single-image super-resolution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.nn.convolution import Conv
from fer_jax.nn.linear import uniform_fan_in

SCALES = (2, 4)


class EDSR(nn.Module):
    """Residual blocks without normalization, a long skip, pixel shuffle: [B, H, W, C] -> [B, scale H, scale W, C].

    Layers have the names of the authors' published checkpoints ('head.0', 'body.3.body.0', 'tail.0.0', ...). The
    authors' shifts by the mean of DIV2K are left out: input and output are in the normalized space of the network that
    uses this one, and the output is not clipped. Residual branches have weight 1, as in all networks of 64 channels.

    Attributes:
        scale: 2 or 4.
        blocks: residual blocks.
        width: channels.
        dtype: of the computation; the output is float32.
    """

    scale: int = 2
    blocks: int = 16
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B sH sW C"]:
        if self.scale not in SCALES:
            raise UserError(f"EDSR has no scale {self.scale}: give {' or '.join(map(str, SCALES))}")

        def conv(features: int, name: str, x: jax.Array) -> jax.Array:
            init = uniform_fan_in(9 * x.shape[-1])  # PyTorch's, for kernels and biases
            layer = Conv(features, use_bias=True, kernel_init=init, bias_init=init, dtype=self.dtype, name=name)
            return layer(x)

        head = conv(self.width, "head.0", image.astype(self.dtype))
        x = head
        for i in range(self.blocks):
            x = x + conv(self.width, f"body.{i}.body.2", nn.relu(conv(self.width, f"body.{i}.body.0", x)))
        x = conv(self.width, f"body.{self.blocks}", x) + head
        for doubling in range(self.scale // 2):
            # A convolution and a shuffle each; the checkpoint numbers both in one sequence.
            x = pixel_shuffle(conv(4 * self.width, f"tail.0.{2 * doubling}", x), 2)
        return conv(image.shape[-1], "tail.1", x).astype(jnp.float32)


def pixel_shuffle(x: Float[Array, "B H W rrC"], factor: int) -> Float[Array, "B rH rW C"]:
    """Moves channels into space in PyTorch's order: channel (c, row, column) of r*r*C becomes a cell of channel c."""
    return rearrange(x, "b h w (c i j) -> b (h i) (w j) c", i=factor, j=factor)


def bicubic(image: Float[Array, "B H W C"], scale: int) -> Float[Array, "B sH sW C"]:
    """Returns the image enlarged by bicubic interpolation (Keys, a = -1/2), the baseline of super-resolution."""
    batch, height, width, channels = image.shape
    return jax.image.resize(image, (batch, scale * height, scale * width, channels), "cubic", antialias=False)


def area_half(image: Float[Array, "B H W C"], times: int = 1) -> Float[Array, "B h w C"]:
    """Halves both (even) sides `times` times by averaging 2x2 cells."""
    factor = 2**times
    return rearrange(image, "b (h i) (w j) c -> b h w c i j", i=factor, j=factor).mean((-1, -2))
