"""3x3 convolutions of stride 1 with 16 products instead of 36.

Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, arXiv 1509.09308). The output is divided into tiles of
2x2 cells, each of which sees a window of 4x4 inputs. Windows and kernels are transformed by sums and differences into
4x4 cells each, followed by one matrix product per cell over all tiles at once. The matrices contain only 0, 1, -1 and
1/2, so rounding is no worse than in the definition. (F(4x4, 3x3) would take a quarter of the products instead of 4/9,
but its rounding errors are six to ten times as large, and on a CPU it is no faster.)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

Cells = list[list[jax.Array]]  # [row][column]
Matrix = tuple[tuple[float, ...], ...]
Padding = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)); negative numbers crop

TILE = 2  # outputs of a tile along one axis
WINDOW = 4  # inputs that they see
# Along one axis: outputs = OUTPUT ((KERNEL kernel) * (INPUT window)), where * is elementwise.
INPUT: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
KERNEL: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
OUTPUT: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))


def conv_winograd(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolves x [B, H, W, C] with kernel [3, 3, C, F], padded by ((top, bottom), (left, right)) -> [B, H', W', F]."""
    weights = _both_axes(KERNEL, [[kernel[i, j] for j in range(3)] for i in range(3)])
    return _convolve(x, weights, 0, padding)


def input_gradient_winograd(dy: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Returns the gradient of a convolution (padded as given) to its input, [B, H, W, C], from dy [B, H', W', F].

    It is the convolution of dy with the kernel rotated by 180 degrees, each cell transposed. The products transpose the
    cells on the fly; doing so in memory would take several times as long as the products.
    """
    (top, bottom), (left, right) = padding
    weights = _both_axes(KERNEL, [[kernel[2 - i, 2 - j] for j in range(3)] for i in range(3)])
    return _convolve(dy, weights, 1, ((2 - top, 2 - bottom), (2 - left, 2 - right)))


def _convolve(x: jax.Array, weights: Cells, contracted: int, padding: Padding) -> jax.Array:
    """Convolves with a transformed kernel; `contracted` is the axis of its cells that holds the inputs."""
    height, width = _output_map(x, padding)
    inputs = _transformed_windows(x, padding)
    dims = (((3,), (contracted,)), ((), ()))
    products = [[lax.dot_general(inputs[i][j], weights[i][j], dims) for j in range(WINDOW)] for i in range(WINDOW)]
    # [B, rows, TILE, columns, TILE, F]
    y = jnp.stack([jnp.stack(row, axis=3) for row in _both_axes(OUTPUT, products)], axis=2)
    return y.reshape(x.shape[0], TILE * y.shape[1], TILE * y.shape[3], y.shape[5])[:, :height, :width]


def kernel_gradient_winograd(x: jax.Array, dy: jax.Array, padding: Padding) -> jax.Array:
    """Returns the gradient of a convolution (padded as given) to its kernel, [3, 3, C, F], from dy [B, H', W', F]."""
    height, width = dy.shape[1:3]
    spare = [(0, 0, 0), (0, _tiles(height) * TILE - height, 0), (0, _tiles(width) * TILE - width, 0), (0, 0, 0)]
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), spare)
    cells = [[dy[:, i::TILE, j::TILE] for j in range(TILE)] for i in range(TILE)]
    outputs = _both_axes(_transposed(OUTPUT), cells)
    inputs = _transformed_windows(x, padding)
    products = [
        [
            lax.dot_general(
                inputs[i][j].reshape(-1, x.shape[3]), outputs[i][j].reshape(-1, dy.shape[3]), (((0,), (0,)), ((), ()))
            )
            for j in range(WINDOW)
        ]
        for i in range(WINDOW)
    ]
    dkernel = _both_axes(_transposed(KERNEL), products)
    return jnp.stack([jnp.stack(row) for row in dkernel])


def _output_map(x: jax.Array, padding: Padding) -> tuple[int, int]:
    height, width = (size + sum(pad) - 2 for size, pad in zip(x.shape[1:3], padding, strict=True))
    return height, width


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _transformed_windows(x: jax.Array, padding: Padding) -> Cells:
    """Returns the 4x4 transformed cells [B, rows, columns, C] of the windows of x [B, H, W, C] in all tiles."""
    rows, columns = (_tiles(size) for size in _output_map(x, padding))
    (top, _), (left, _) = padding
    seen = TILE * rows + WINDOW - TILE, TILE * columns + WINDOW - TILE
    config = [(0, 0, 0), (top, seen[0] - top - x.shape[1], 0), (left, seen[1] - left - x.shape[2], 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    # One axis after the other, stored in between: in a single pass every cell would read up to 4 places of x.
    vertical = [x[:, i : i + TILE * rows - 1 : TILE] for i in range(WINDOW)]
    halfway = [lax.optimization_barrier(row) for row in _along(INPUT, vertical)]
    return [_along(INPUT, [row[:, :, j : j + TILE * columns - 1 : TILE] for j in range(WINDOW)]) for row in halfway]


def _both_axes(matrix: Matrix, cells: Cells) -> Cells:
    """Returns matrix X matrix^T for the cells X [row][column]."""
    rows = [_along(matrix, row) for row in cells]  # the second axis
    columns = [_along(matrix, [row[j] for row in rows]) for j in range(len(matrix))]  # then the first
    return [[column[i] for column in columns] for i in range(len(matrix))]


def _along(matrix: Matrix, cells: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns the matrix applied to a list of cells."""
    return [functools.reduce(jnp.add, _terms(row, cells)) for row in matrix]


def _terms(row: Sequence[float], cells: Sequence[jax.Array]) -> list[jax.Array]:
    return [cell if weight == 1 else weight * cell for weight, cell in zip(row, cells, strict=True) if weight]


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
