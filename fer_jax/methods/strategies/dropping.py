"""Dropping: at the start of each epoch the most suspicious examples of the training set are left out of its loss.

    trim     moving average (`decay`) of the loss of an example: a network fits wrong labels last
    aum      the margin z_y - max_{k != y} z_k, averaged over the epochs, low ones first (area under the margin,
             Pleiss et al., NeurIPS 2020, who train anew without them)
    random   a number drawn once for each example: the control, which drops the same share at random

The share `share` is taken of each class, or of all classes together, where rare classes vanish first. Dropped examples
are still looked at, and return when others have become more suspicious. Only training examples are dropped; the test
set stays whole. Small-loss selection, which looks at one batch, is `small_loss`; votes of annotators select by
`agreement`.

Choice where the sources are silent: a share of a class is rounded to the nearest whole number of examples.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from fer_jax.errors import UserError
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Aux, Batch, Clock, Config, Memory, Method, Outputs, Terms
from fer_jax.methods.objective import Strategy
from fer_jax.methods.rows import write
from fer_jax.methods.strategies.relabel import check_one_label

RULES = ("trim", "aum", "random")


def apply(
    method: Method,
    *,
    rule: str = "trim",
    share: float = 0.1,
    by_class: bool = True,
    start: float = 10.0,
    decay: float = 0.7,
) -> Method:
    """Sets `memory`, `targets`, `select` and `remember`.

    Args:
        method: any classifier of images.
        rule: what makes an example suspicious, one of RULES
        share: the fraction of the training examples to drop
        by_class: whether to drop this fraction of each class, instead of all classes together
        start: the epoch, from 0, at which dropping begins
        decay: decay of the moving average of 'trim'
    """

    def targets(memory: Memory, batch: Batch, clock: Clock) -> Batch:
        """Adds dropped, bool [B], and drop_rates [B, C], and where labels are known to be wrong wrong_drops [B, 2]."""
        del clock
        size, classes = batch["target"].shape
        dropped = memory["dropped"]
        rates = shares_of(dropped, memory["label"], classes)
        found = {"dropped": dropped[batch["index"]], "drop_rates": jnp.broadcast_to(rates, (size, classes))}
        if "clean_label" in batch:
            hits = jnp.sum((dropped & memory["wrong"]).astype(jnp.float32))
            of = jnp.stack([jnp.sum(x.astype(jnp.float32)) for x in (dropped, memory["wrong"])])
            found["wrong_drops"] = jnp.broadcast_to(hits / jnp.maximum(of, 1.0), (size, 2))
        return {**batch, **found}

    def select(terms: Terms, outputs: Outputs, batch: Batch, clock: Clock) -> Float[Array, "B"]:
        """Reads mask and dropped."""
        del terms, outputs, clock
        return (batch["mask"] & ~batch["dropped"]).astype(jnp.float32)

    def remember(memory: Memory, outputs: Outputs, batch: Batch, clock: Clock) -> Memory:
        """Reads target, label, index and mask."""
        index, valid = batch["index"], batch["mask"]
        epoch = jnp.floor(clock.epoch).astype(jnp.int32)
        # The step that begins an epoch decides for this epoch, by what was seen before it.
        begins = (epoch > jnp.max(memory["epoch"])) & (clock.epoch >= start)
        seen = jnp.where(memory["visits"] > 0, memory["score"], -jnp.inf)
        of = memory["label"] if by_class else jnp.zeros_like(memory["label"])
        dropped = jax.lax.cond(begins, lambda: highest(seen, of, share), lambda: memory["dropped"])
        score = memory["score"][index]
        if rule != "random":
            score = updated(rule, score, memory["visits"][index], outputs[0].logits, batch, decay)
        return memory | {
            "score": write(memory["score"], index, score, valid),
            "visits": write(memory["visits"], index, memory["visits"][index] + 1, valid),
            "epoch": write(memory["epoch"], index, jnp.full_like(index, epoch), valid),
            "dropped": dropped,
        }

    def monitor(logits: Float[Array, "B C"], aux: Aux, batch: Batch) -> dict[str, Float[Array, ""]]:
        """The dropped fraction of each class and, if the truth is known, precision and recall of dropping."""
        values = {f"dropped_class_{k}": rate for k, rate in enumerate(batch["drop_rates"][0])}
        if "wrong_drops" in batch:
            values["dropped_precision"], values["dropped_recall"] = batch["wrong_drops"][0]
        return method.monitor(logits, aux, batch) | values

    memory = functools.partial(first_memory, rule=rule, share=share, by_class=by_class)
    hooks: dict[str, Any] = {"memory": memory, "targets": targets, "select": select, "remember": remember}
    return dataclasses.replace(method, monitor=monitor, **hooks)


def first_memory(fields: Mapping[str, np.ndarray], rule: str, share: float, by_class: bool) -> Memory:
    """score, larger for suspicious examples; visits; epoch of the last visit; dropped; the fixed label and wrong."""
    label = np.asarray(fields["label"], np.int32)
    counts = np.bincount(label) if by_class else np.array([len(label)])
    if not np.round(share * counts).any():
        raise UserError(
            f"config.strategy.dropping.share={share}: this share of {counts.max()} training examples rounds to none: "
            "give a larger one, or by_class=False"
        )
    return {
        "score": np.asarray(fields["draw"], np.float32) if rule == "random" else np.zeros(len(label), np.float32),
        "visits": np.zeros(len(label), np.int32),
        "epoch": np.zeros(len(label), np.int32),
        "dropped": np.zeros(len(label), bool),
        "label": label,
        "wrong": label != np.asarray(fields.get("clean_label", label)),  # for the log alone
    }


def updated(
    rule: str,
    score: Float[Array, "B"],
    visits: Int[Array, "B"],
    logits: Float[Array, "B C"],
    batch: Batch,
    decay: float,
) -> Float[Array, "B"]:
    """The score after another visit: the moving average of the loss, or the mean of minus the margin."""
    if rule == "trim":
        now = cross_entropy(logits, batch["target"])
        return jnp.where(visits > 0, decay * score + (1.0 - decay) * now, now)
    return score + (-margin(logits, batch["label"]) - score) / (visits + 1).astype(jnp.float32)


def margin(logits: Float[Array, "B C"], label: Int[Array, "B"]) -> Float[Array, "B"]:
    """z_y - max_{k != y} z_k."""
    own = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
    others = jnp.max(jnp.where(own, -jnp.inf, logits), axis=-1)
    return jnp.take_along_axis(logits, label[:, None], axis=-1)[:, 0] - others


def highest(score: Float[Array, "N"], label: Int[Array, "N"], share: float) -> Bool[Array, "N"]:
    """Selects a share of each class with the highest scores; ties go by index, and unseen examples are never taken."""
    order = jnp.lexsort((-score, label))  # stable: ties by index
    sorted_label = label[order]
    first = jnp.searchsorted(sorted_label, sorted_label, side="left")
    count = jnp.searchsorted(sorted_label, sorted_label, side="right") - first
    most = jnp.round(share * count.astype(jnp.float32)).astype(jnp.int32)
    chosen = jnp.arange(len(label)) - first < most
    return jnp.zeros(len(label), bool).at[order].set(chosen) & (score > -jnp.inf)


def shares_of(chosen: Bool[Array, "N"], label: Int[Array, "N"], classes: int) -> Float[Array, "C"]:
    """The share of each class that is chosen."""
    counted = jax.ops.segment_sum(jnp.ones(len(label), jnp.float32), label, classes)
    return jax.ops.segment_sum(chosen.astype(jnp.float32), label, classes) / jnp.maximum(counted, 1.0)


def check(config: Config) -> None:
    """Raises UserError for options that drop nothing or everything, and for targets without a single label."""
    options = config.strategy.dropping
    if not 0 < options.share < 1:
        raise UserError(f"config.strategy.dropping.share={options.share}: give a share above 0 and below 1")
    if not 0 <= options.decay < 1:
        raise UserError(f"config.strategy.dropping.decay={options.decay}: give a number of at least 0 and below 1")
    if not 1 <= options.start < config.train.epochs:
        raise UserError(
            f"config.strategy.dropping.start={options.start:g}: give an epoch of at least 1, after which every example "
            f"has been seen, and before the last of config.train.epochs={config.train.epochs:g}"
        )
    if options.rule != "random":
        check_one_label(config, "dropping")


STRATEGY = Strategy(
    apply=apply, claims=("memory", "targets", "select", "remember"), needs=("classes", "images"), check=check
)
