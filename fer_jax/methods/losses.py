"""Classification losses that every method may use: one value per example, soft targets allowed."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import UserError, nearest

MULTI_TARGET_FLOOR = 1e-3  # weight of a class that no annotator chose (FER+ reference code)


def cross_entropy(logits: Float[Array, "B C"], target: Float[Array, "B C"]) -> Float[Array, "B"]:
    """Cross-entropy -sum_k t_k log p_k of the softmax of `logits` against a distribution, in nats."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    # A class without mass adds nothing, even where its probability underflows to zero (0 * -inf).
    return -jnp.sum(jnp.where(target > 0, target * log_p, 0.0), axis=-1)


def multi_target(logits: Float[Array, "B C"], target: Float[Array, "B C"]) -> Float[Array, "B"]:
    """FER+'s multi-target loss (Barsoum et al., ICMI 2016): -log max_k t_k p_k.

    Every class with mass in `target` counts as right, t_k = 1; the others get t_k = 0.001, as in the authors'
    code. Only the best of these products receives a gradient. Label smoothing would allow every class.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_t = jnp.where(target > 0, 0.0, jnp.log(MULTI_TARGET_FLOOR))
    best = jnp.argmax(jax.lax.stop_gradient(log_t + log_p), axis=-1, keepdims=True)
    return -jnp.take_along_axis(log_t + log_p, best, axis=-1)[:, 0]


CLASSIFICATION = {"cross_entropy": cross_entropy, "multi_target": multi_target}


def classification_loss(logits: Float[Array, "B C"], target: Float[Array, "B C"], kind: str) -> Float[Array, "B"]:
    """The classification term named by the config field `loss.classification`."""
    if kind not in CLASSIFICATION:
        raise UserError(f"no classification loss '{kind}': {nearest(kind, CLASSIFICATION)}")
    return CLASSIFICATION[kind](logits, target)
