"""Losses that several methods use: of classes, one value per example, soft targets allowed; of valence and arousal."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import UserError, nearest
from fer_jax.labels import AFFECT

LEAST = 1e-6  # of the denominator of the concordance: a batch without annotations has none
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


def affect_terms(predicted: Float[Array, "B 2"], batch: Mapping[str, Array]) -> dict[str, Float[Array, "B"]]:
    """Returns two losses of valence and arousal, means over both and over the annotated examples of the batch.

    `affect_squared` is the squared error; `affect_ccc` is 1 - CCC (Lin 1989; see `metrics.affect_scores`), which equals
    the squared error over var p + var t + (mean p - mean t)^2. Each is repeated for every example, so that its mean is
    itself; weights of classes do not apply.

    Args:
        predicted: in -1 .. 1.
        batch: reads valence, arousal and mask, each [B].

    Raises:
        UserError: if the data set has neither, or faces are mixed.
    """
    if not set(AFFECT) <= set(batch):
        raise UserError(
            "config.model.affect=True: this data set has no valence and arousal to learn from; set it to False, or "
            "config.data.dataset to affectnet; synthetic faces have them with config.data.builder.affect=True"
        )
    if "target_hits" in batch:
        raise UserError(
            "config.model.affect=True: mixed faces have no ratings to learn from; set it to False, or leave mixup and "
            "cutmix out of config.objective"
        )
    truth = jnp.stack([batch[name] for name in AFFECT], axis=-1)
    known = (jnp.abs(truth) <= 1) & batch["mask"][:, None]  # NaN is not
    truth, count = jnp.where(known, truth, 0.0), jnp.maximum(jnp.sum(known, axis=0), 1)

    def mean(values: Float[Array, "B 2"]) -> Float[Array, "2"]:
        return jnp.sum(jnp.where(known, values, 0.0), axis=0) / count.astype(jnp.float32)

    p, t, squared = mean(predicted), mean(truth), mean((predicted - truth) ** 2)
    spread = mean((predicted - p) ** 2) + mean((truth - t) ** 2) + (p - t) ** 2
    terms = {"affect_ccc": squared / (spread + LEAST), "affect_squared": squared}
    return {name: jnp.broadcast_to(jnp.mean(values), known.shape[:1]) for name, values in terms.items()}
