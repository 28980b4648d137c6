"""Two-dimensional convolution that chooses its lowering by device and shape.

GPU and TPU always use XLA's own convolution. On a CPU each of the three passes (output, gradient to the input,
gradient to the kernel) uses the fastest of three forms, which compute the same function up to rounding:

- XLA's convolution, for very large maps, few channels and the 7x7 stem;
- Winograd's, for 3x3 kernels of stride 1: less than half of the products, see nn/winograd.py;
- taps: the sum of one matrix product per kernel cell, over only those outputs for which the cell lies inside the
  image. On small maps much of the padded convolution multiplies zeros (5/9 of it on a 2x2 map), and XLA's own form is
  up to eighty times slower there than its usual rate.

The rules in `choose_lowering` come from the measurements of benchmarks/convolution.py, see docs/performance.md.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from fer_jax.nn.linear import add_bias
from fer_jax.nn.lowering import differentiated, for_cpu
from fer_jax.nn.padding import pad_axis
from fer_jax.nn.winograd import conv_winograd, input_gradient_winograd, kernel_gradient_winograd

Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)), all >= 0

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # He et al. 2015, untruncated


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))) -> jax.Array:
    """Convolves x [B, H, W, C] with kernel [kh, kw, C, F], zero-padded as given -> [B, H', W', F]."""
    if not for_cpu():
        return conv_xla(x, kernel, stride, padding)
    return (conv_cpu if differentiated() else output_cpu)(x, kernel, stride, padding)


def conv_xla(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Returns XLA's own convolution; arguments as in `conv2d`."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


Form = Literal["xla", "taps", "winograd"]


class Lowering(NamedTuple):
    """The form of each pass."""

    output: Form
    input_gradient: Form
    kernel_gradient: Form


def choose_lowering(kernel_shape: Sequence[int], out_map: Sequence[int], stride: int, dtype: Any) -> Lowering:
    """Returns the fastest forms on a CPU for kernel [kh, kw, C, F] and output map [H', W']."""
    kh, kw, channels, features = kernel_shape
    cells = out_map[0] * out_map[1]
    if (kh, kw) == (1, 1):
        return Lowering("taps", "taps", "taps")  # a single matrix product, without the layout changes of a convolution
    if cells <= 9:
        return Lowering("taps", "taps", "taps")
    # XLA's form spreads dy over a map of zeros. A stem is excluded: its matrix products would be too thin.
    strided = stride > 1 and channels >= 32
    usual = Lowering(
        output="taps" if cells <= 49 and channels >= 256 else "xla",
        input_gradient="taps" if strided or channels >= 256 else "xla",  # XLA's form transposes the kernel in memory
        kernel_gradient="taps" if strided and cells <= 196 else "xla",
    )
    # Winograd's form writes every value four times: too much on very large maps, and with few channels more expensive
    # than the products that it saves. In bfloat16 it would add another rounding.
    narrow = min(channels, features)
    if (kh, kw, stride) != (3, 3, 1) or narrow < 64 or cells > 56 * 56 or dtype != jnp.float32:
        return usual
    # A pass in this form takes about half a second to compile, so a gradient uses it only where it saves a quarter.
    deep = narrow >= 512 and cells <= 49
    return Lowering(
        output="winograd",
        input_gradient=usual.input_gradient if deep else "winograd",
        kernel_gradient=usual.kernel_gradient if deep or narrow < 128 else "winograd",
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_cpu(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Returns the convolution with the fastest form of each pass; arguments as in `conv2d`."""
    return output_cpu(x, kernel, stride, padding)


def output_cpu(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Returns the convolution in the fastest form of its output; its gradient is not the fast one of `conv_cpu`."""
    out_map = output_map(x.shape, kernel.shape, stride, padding)
    form = choose_lowering(kernel.shape, out_map, stride, x.dtype).output
    if form == "winograd":
        return conv_winograd(x, kernel, padding)
    return (conv_taps if form == "taps" else conv_xla)(x, kernel, stride, padding)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding):
    return conv_cpu(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: Padding, residuals: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, kernel = residuals
    choice = choose_lowering(kernel.shape, dy.shape[1:3], stride, x.dtype)
    if choice.input_gradient == "winograd":
        dx = input_gradient_winograd(dy, kernel, padding)
    elif choice.input_gradient == "taps":
        dx = input_gradient_taps(dy, kernel, x.shape, stride, padding)
    else:
        (dx,) = jax.linear_transpose(lambda x: conv_xla(x, kernel, stride, padding), x)(dy)
    if choice.kernel_gradient == "winograd":
        dkernel = kernel_gradient_winograd(x, dy, padding)
    elif choice.kernel_gradient == "taps":
        dkernel = kernel_gradient_taps(x, dy, kernel.shape, stride, padding)
    else:
        (dkernel,) = jax.linear_transpose(lambda k: conv_xla(x, k, stride, padding), kernel)(dy)
    return dx, dkernel


conv_cpu.defvjp(_forward, _backward)


def output_map(x_shape: Sequence[int], kernel_shape: Sequence[int], stride: int, padding: Padding) -> tuple[int, int]:
    """Returns (H', W') of a convolution of x [B, H, W, C] with kernel [kh, kw, C, F]."""
    height, width = (
        (size + sum(pad) - k) // stride + 1
        for size, pad, k in zip(x_shape[1:3], padding, kernel_shape[:2], strict=True)
    )
    return height, width


class Span(NamedTuple):
    """The outputs along one axis, [start, stop) of `size`, that a kernel cell feeds from inside the image.

    The first of them reads input `first`; each next one reads `stride` further.
    """

    start: int
    stop: int
    size: int
    first: int

    @classmethod
    def of(cls, cell: int, out_size: int, in_size: int, stride: int, before: int) -> Span:
        offset = cell - before  # output o reads input stride * o + offset
        start = max(0, -(offset // stride))
        stop = min(out_size, (in_size - 1 - offset) // stride + 1)
        return cls(start, max(start, stop), out_size, stride * start + offset)

    @property
    def outputs(self) -> slice:
        return slice(self.start, self.stop)

    def inputs(self, stride: int) -> slice:
        return slice(self.first, self.first + stride * (self.stop - self.start - 1) + 1, stride)

    def into_output(self) -> tuple[int, int, int]:
        """Returns the `lax.pad` configuration that puts the fed outputs back into the whole axis."""
        return self.start, self.size - self.stop, 0

    def into_input(self, in_size: int, stride: int) -> tuple[int, int, int]:
        """Returns the `lax.pad` configuration that puts the read inputs back into the whole axis."""
        return self.first, in_size - self.inputs(stride).stop, stride - 1


def _taps(
    x_shape: Sequence[int], kernel_shape: Sequence[int], stride: int, padding: Padding
) -> Iterator[tuple[int, int, Span, Span]]:
    """Yields the kernel's cells (row, column) with their spans, except cells that see only padding."""
    out = output_map(x_shape, kernel_shape, stride, padding)
    for row in range(kernel_shape[0]):
        for column in range(kernel_shape[1]):
            v = Span.of(row, out[0], x_shape[1], stride, padding[0][0])
            h = Span.of(column, out[1], x_shape[2], stride, padding[1][0])
            if v.start < v.stop and h.start < h.stop:
                yield row, column, v, h


def _embed(x: jax.Array, vertical: tuple[int, int, int], horizontal: tuple[int, int, int]) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), vertical, horizontal, (0, 0, 0)))


def conv_taps(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Returns the convolution as a sum of matrix products, one per kernel cell; arguments as in `conv2d`."""
    taps = (
        _embed(x[:, v.inputs(stride), h.inputs(stride)] @ kernel[row, column], v.into_output(), h.into_output())
        for row, column, v, h in _taps(x.shape, kernel.shape, stride, padding)
    )
    return functools.reduce(jnp.add, taps)


def input_gradient_taps(
    dy: jax.Array, kernel: jax.Array, x_shape: Sequence[int], stride: int, padding: Padding
) -> jax.Array:
    """Returns the gradient of a convolution to its input, [B, H, W, C], from dy [B, H', W', F]."""
    taps = (
        _embed(
            lax.dot_general(dy[:, v.outputs, h.outputs], kernel[row, column], (((3,), (1,)), ((), ()))),
            v.into_input(x_shape[1], stride),
            h.into_input(x_shape[2], stride),
        )
        for row, column, v, h in _taps(x_shape, kernel.shape, stride, padding)
    )
    return functools.reduce(jnp.add, taps)


def kernel_gradient_taps(
    x: jax.Array, dy: jax.Array, kernel_shape: Sequence[int], stride: int, padding: Padding
) -> jax.Array:
    """Returns the gradient of a convolution to its kernel, [kh, kw, C, F], from dy [B, H', W', F]."""
    kh, kw, channels, features = kernel_shape
    cells = [[jnp.zeros((channels, features), dy.dtype)] * kw for _ in range(kh)]
    for row, column, v, h in _taps(x.shape, kernel_shape, stride, padding):
        seen = x[:, v.inputs(stride), h.inputs(stride)].reshape(-1, channels)
        sent = dy[:, v.outputs, h.outputs].reshape(-1, features)
        cells[row][column] = lax.dot_general(seen, sent, (((0,), (0,)), ((), ())))
    return jnp.stack([cell for row in cells for cell in row]).reshape(kernel_shape)


def same_padding(kernel_size: tuple[int, int]) -> Padding:
    """Returns PyTorch's symmetric padding, k // 2 on each side (JAX's 'SAME' is asymmetric for stride 2)."""
    top, left = (k // 2 for k in kernel_size)
    return ((top, top), (left, left))


def conv_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Returns the convolution as a product of the patches of x with the kernel as a matrix; see `conv2d`.

    Under `vmap` over many kernels it becomes one batched product; a convolution would become a grouped one, which is
    many times slower on XLA's CPU backend.
    """
    kh, kw, channels, features = kernel.shape
    height, width = output_map(x.shape, kernel.shape, stride, padding)
    x = pad_axis(pad_axis(x, 1, padding[0], 0.0), 2, padding[1], 0.0)
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    cells = [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(kh) for j in range(kw)]
    return jnp.concatenate(cells, axis=-1) @ kernel.reshape(kh * kw * channels, features)


class Conv(nn.Module):
    """`nn.Conv` with the same parameters: 'kernel' [kh, kw, in, out] and optionally 'bias' [out].

    Attributes:
        features: output channels.
        kernel_size: (kh, kw).
        stride: the same in both directions.
        padding: zeros per side, or None for k // 2 on each side.
        use_bias: whether to add a bias.
        as_product: use `conv_patches`, for layers that are vmapped over many kernels.
        dtype: of the computation; parameters are float32.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: Padding | None = None
    use_bias: bool = False
    as_product: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = he_fan_out
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        padding = same_padding(self.kernel_size) if self.padding is None else self.padding
        conv = conv_patches if self.as_product else conv2d
        y = conv(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)
        if self.use_bias:
            y = add_bias(y, self.param("bias", self.bias_init, (self.features,)))
        return y
