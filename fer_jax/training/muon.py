"""Muon: momentum orthogonalized by a Newton-Schulz iteration (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

A kernel [h, w, C, F] is taken as the matrix [h w C, F]. The iteration X <- (a I + b XX^T + c (XX^T)^2) X multiplies X
by polynomials of XX^T alone. Here they are multiplied with each other first and with X once: XX^T is small, because the
matrix of a 3x3 kernel has many more rows than columns (docs/performance.md).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

IMAGE_CHANNELS = 3  # a convolution with at most this many input channels reads the image itself
A, B, C = 3.4445, -4.7750, 2.0315
STEPS = 5
EPSILON = 1e-8


def muon(
    learning_rate: optax.Schedule, momentum: float, weight_decay: float, rest: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Updates the kernels of hidden convolutions by Muon, all other parameters by `rest`.

    Args:
        learning_rate: by step.
        momentum: of Nesterov, constant.
        weight_decay: decoupled, of the kernels.
        rest: for the first convolution, the output layer, biases and norms.
    """
    hidden = optax.chain(
        optax.trace(momentum, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map(orthogonalized, updates)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    return optax.partition(
        {True: hidden, False: rest},
        lambda params: jax.tree.map(lambda p: p.ndim == 4 and p.shape[2] > IMAGE_CHANNELS, params),
    )


def orthogonalized(kernel: Float[Array, "*K F"]) -> Float[Array, "*K F"]:
    """Returns the kernel with all singular values of its matrix near 1, times sqrt(F / rows) if F is the larger one."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    rows, columns = matrix.shape
    x = matrix if rows <= columns else matrix.T
    x = x / (jnp.linalg.norm(x) + EPSILON)
    gram, product = _matmul(x, x.T), jnp.eye(len(x))
    for _ in range(STEPS):
        factor = A * jnp.eye(len(x)) + B * gram + C * _matmul(gram, gram)
        product = _matmul(factor, product)
        gram = _matmul(factor, _matmul(gram, factor))
    x = _matmul(product, x)
    scale = math.sqrt(max(1.0, columns / rows))
    return scale * (x if rows <= columns else x.T).reshape(kernel.shape)


def _matmul(a: Float[Array, "N M"], b: Float[Array, "M K"]) -> Float[Array, "N K"]:
    """In full precision: errors in small singular values grow with every step."""
    return jnp.matmul(a, b, precision="highest")
