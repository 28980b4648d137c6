"""Two-dimensional convolution that picks its lowering by backend and shape.

All lowerings are the same function (tested in value and in both gradients). GPU and TPU always keep XLA's own
convolution. On a CPU, XLA's convolution collapses on tiny output maps, where patches times a matrix is many times
faster; see docs/performance.md for the measurements behind `choose_lowering`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015, normal, not truncated


def conv_xla(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """XLA's own convolution: x [B, H, W, C], kernel [kh, kw, C, F] -> [B, H', W', F]."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def shifted_slices(x: jax.Array, window: tuple[int, int], stride: int, padding: Padding, fill: float = 0.0):
    """The kh * kw slices of the padded x [B, H, W, C] that a window sees, in row-major order: each [B, H', W', C]."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
    kh, kw = window
    out_h, out_w = (x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1
    end_h, end_w = stride * (out_h - 1) + 1, stride * (out_w - 1) + 1
    return [x[:, i : i + end_h : stride, j : j + end_w : stride] for i in range(kh) for j in range(kw)]


def conv_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """The same convolution as one matrix product: [B * H' * W', kh * kw * C] times [kh * kw * C, F]."""
    kh, kw, channels, features = kernel.shape
    patches = jnp.concatenate(shifted_slices(x, (kh, kw), stride, padding), axis=-1)
    return patches @ kernel.reshape(kh * kw * channels, features)


def choose_lowering(out_height: int, out_width: int) -> str:
    """Returns 'patches' for tiny output maps on a CPU, else 'xla'."""
    if jax.default_backend() == "cpu" and out_height * out_width <= 9:
        return "patches"
    return "xla"


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))) -> jax.Array:
    """Convolves x [B, H, W, C] with kernel [kh, kw, C, F]; zero padding given explicitly per side."""
    kh, kw = kernel.shape[:2]
    out_height = (x.shape[1] + sum(padding[0]) - kh) // stride + 1
    out_width = (x.shape[2] + sum(padding[1]) - kw) // stride + 1
    lowering = conv_patches if choose_lowering(out_height, out_width) == "patches" else conv_xla
    return lowering(x, kernel, stride, padding)


def same_padding(kernel_size: Sequence[int]) -> Padding:
    """Symmetric padding as PyTorch writes it: k // 2 on each side (JAX's 'SAME' is lopsided for stride 2)."""
    return tuple((k // 2, k // 2) for k in kernel_size)  # type: ignore[return-value]


class Conv(nn.Module):
    """`nn.Conv` with the same parameters ('kernel' [kh, kw, in, out] and, if asked, 'bias' [out]).

    Attributes:
        features: output channels.
        kernel_size: (kh, kw).
        stride: one number for both directions.
        padding: per side ((top, bottom), (left, right)), or None for k // 2 on each side.
        use_bias: whether to add a bias.
        dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: Padding | None = None
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = he_fan_out
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        padding = same_padding(self.kernel_size) if self.padding is None else self.padding
        y = conv2d(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,)).astype(self.dtype)
        return y
