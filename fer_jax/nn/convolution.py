"""Two-dimensional convolution that picks its lowering by backend and shape.

GPU and TPU always keep XLA's own convolution. On a CPU the forward pass, the gradient to the input and the gradient
to the kernel each take the faster of three forms, which are the same function up to rounding:

- XLA's convolution, best wherever the output map is not tiny;
- patches (concatenated shifted slices) times a matrix, for maps of 3x3 and below, where XLA's collapses;
- for the input's gradient, one matrix product and the sum of shifted slices (the transpose of the patches): it needs
  no transposed copy of the kernel and no convolution over a map full of zeros.

The rules in `choose_lowering` come from the table in docs/performance.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015, untruncated


class Lowering(NamedTuple):
    """Whether a pass uses patches times a matrix (True) or XLA's own convolution (False)."""

    forward: bool
    input_gradient: bool


def choose_lowering(kernel_shape: Sequence[int], out_map: tuple[int, int], stride: int) -> Lowering:
    """Returns how to lower a CPU convolution with kernel [kh, kw, C, F] onto an output map (H', W')."""
    tiny = out_map[0] * out_map[1] <= 9
    features = kernel_shape[-1]
    # Scattering patch gradients moves kh kw C numbers for 2 kh kw C F operations: it pays from some F on.
    return Lowering(forward=tiny, input_gradient=tiny or stride > 1 or features >= 256)


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))) -> jax.Array:
    """Convolves x [B, H, W, C] with kernel [kh, kw, C, F], zero-padded as given -> [B, H', W', F]."""
    if jax.default_backend() != "cpu":
        return conv_xla(x, kernel, stride, padding)
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    return conv_cpu(x, kernel, stride, padding)


def conv_xla(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def shifted_slices(
    x: jax.Array, window: tuple[int, int], stride: int, padding: Padding, fill: float = 0.0
) -> list[jax.Array]:
    """The kh * kw slices [B, H', W', C] of the padded x that a window's cells see, in row-major order."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
    out_h, out_w = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], window, strict=True))
    end_h, end_w = stride * (out_h - 1) + 1, stride * (out_w - 1) + 1
    return [
        x[:, i : i + end_h : stride, j : j + end_w : stride]
        for i in range(window[0])
        for j in range(window[1])
    ]


def conv_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """The convolution as one matrix product: [B H' W', kh kw C] times [kh kw C, F]."""
    kh, kw, channels, features = kernel.shape
    patches = jnp.concatenate(shifted_slices(x, (kh, kw), stride, padding), axis=-1)
    return patches @ kernel.reshape(kh * kw * channels, features)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_cpu(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """The convolution with the faster lowering for each of its three passes."""
    out_map = tuple(
        (n + sum(pad) - k) // stride + 1
        for n, pad, k in zip(x.shape[1:3], padding, kernel.shape[:2], strict=True)
    )
    patches = choose_lowering(kernel.shape, out_map, stride).forward
    return (conv_patches if patches else conv_xla)(x, kernel, stride, padding)


def _conv_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding):
    return conv_cpu(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride: int, padding: Padding, residuals: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, kernel = residuals
    patches = choose_lowering(kernel.shape, dy.shape[1:3], stride).input_gradient
    by_input = conv_patches if patches else conv_xla
    (dx,) = jax.linear_transpose(lambda x: by_input(x, kernel, stride, padding), x)(dy)
    (dkernel,) = jax.linear_transpose(lambda kernel: conv_xla(x, kernel, stride, padding), kernel)(dy)
    return dx, dkernel


conv_cpu.defvjp(_conv_forward, _conv_backward)


def same_padding(kernel_size: tuple[int, int]) -> Padding:
    """PyTorch's symmetric padding, k // 2 on each side (JAX's 'SAME' is lopsided for stride 2)."""
    (top, left) = (k // 2 for k in kernel_size)
    return ((top, top), (left, left))


class Conv(nn.Module):
    """`nn.Conv` with the same parameters: 'kernel' [kh, kw, in, out] and, if asked, 'bias' [out].

    Attributes:
        features: output channels.
        kernel_size: (kh, kw).
        stride: the same in both directions.
        padding: zeros per side, or None for k // 2 on each side.
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
