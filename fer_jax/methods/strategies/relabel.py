"""Relabeling, the third module of SCN (Wang et al., CVPR 2020): replaces labels that the prediction contradicts.

From epoch `start` on, with the probabilities p of the training view: where max_k p_k - p_y > delta2, y becomes
argmax_k p_k from the next visit on. The paper looks at the uncertain group of a batch alone, the released code at the
whole batch, which its authors call a mistake (issue 33). It runs over any method that gives an `uncertainty`, as RUL
does, for which it was added under label noise; `scope='batch'` needs none.

The stored labels do not change: replacements are kept in the memory of training, so no evaluation sees them. Choice
where the sources are silent: with `permanent=False` each visit judges the stored label again, so that a label can
return.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from fer_jax.errors import UserError
from fer_jax.methods.method import Aux, Batch, Clock, Config, Memory, Method, Outputs
from fer_jax.methods.objective import Strategy, load, parts
from fer_jax.methods.rows import write
from fer_jax.methods.strategies.small_loss import smallest

SCOPES = ("low", "batch")
KEPT = -1  # in memory, of an example that has its own label


def apply(
    method: Method,
    *,
    beta: float = 0.7,
    delta2: float = 0.2,
    start: float = 10.0,
    scope: str = "low",
    permanent: bool = True,
) -> Method:
    """Sets `memory`, `targets` and `remember`.

    Args:
        method: any classifier of images.
        beta: the fraction of each batch, its most certain examples, whose labels are trusted
        delta2: by how much another class must be more probable than the label
        start: the epoch, from 0, at which relabeling begins
        scope: where to relabel, one of SCOPES; 'low' outside the fraction beta, 'batch' everywhere
        permanent: whether a replaced label is kept; otherwise each visit decides again
    """
    if scope == "low" and "uncertainty" not in method.profiles:
        raise UserError(
            "config.strategy.relabel.scope='low' relabels uncertain examples, but this method provides no "
            "uncertainty: give 'batch', or config.objective='scn'"
        )

    def memory(fields: Mapping[str, np.ndarray]) -> Memory:
        return {"label": np.full(len(fields["label"]), KEPT, np.int32)}

    def targets(memory: Memory, batch: Batch, clock: Clock) -> Batch:
        """Replaces target; adds relabeled, bool [B]."""
        del clock
        label = memory["label"][batch["index"]]
        replaced = label != KEPT
        target = jax.nn.one_hot(label, batch["target"].shape[-1], dtype=batch["target"].dtype)
        return {**batch, "target": jnp.where(replaced[:, None], target, batch["target"]), "relabeled": replaced}

    def remember(memory: Memory, outputs: Outputs, batch: Batch, clock: Clock) -> Memory:
        """Reads label, index and mask."""
        logits, aux = outputs[0]
        stored, given = memory["label"][batch["index"]], batch["label"]
        judged = jnp.where(stored == KEPT, given, stored) if permanent else given
        denied = is_denied(logits, judged, delta2)
        if scope == "low":
            denied &= uncertain(aux["uncertainty"], batch, beta)
        label = jnp.where(denied, jnp.argmax(logits, axis=-1).astype(jnp.int32), judged)
        changed = jnp.where(label == given, KEPT, label)
        valid = batch["mask"] & (clock.epoch >= start)
        return {"label": write(memory["label"], batch["index"], changed, valid)}

    def monitor(logits: Float[Array, "B C"], aux: Aux, batch: Batch) -> dict[str, Float[Array, ""]]:
        """The fraction of relabeled examples and, if the truth is known, of those relabeled to their true class."""
        values = {"relabeled": jnp.mean(batch["relabeled"].astype(jnp.float32))}
        if "clean_label" in batch:
            right = batch["relabeled"] & (jnp.argmax(batch["target"], axis=-1) == batch["clean_label"])
            values["relabeled_rightly"] = jnp.mean(right.astype(jnp.float32))
        return method.monitor(logits, aux, batch) | values

    return dataclasses.replace(method, memory=memory, targets=targets, remember=remember, monitor=monitor)


def is_denied(logits: Float[Array, "B C"], label: Array, delta2: float) -> Bool[Array, "B"]:
    """max_k p_k - p_y > delta2."""
    p = jax.nn.softmax(logits.astype(jnp.float32))
    return jnp.max(p, axis=-1) - jnp.take_along_axis(p, label[:, None], axis=-1)[:, 0] > delta2


def uncertain(uncertainty: Float[Array, "B 1"], batch: Batch, beta: float) -> Bool[Array, "B"]:
    """The low group: the valid examples of a batch without its most certain fraction beta."""
    certain = smallest(uncertainty[:, 0], batch["index"], batch["mask"], jnp.float32(beta))
    return batch["mask"] & (certain == 0)


def check(config: Config) -> None:
    """Raises UserError for options with which nothing is relabeled, and for targets without a single label."""
    check_relabeling(config, "relabel")
    if config.strategy.relabel.scope == "low":
        check_groups(config, "relabel")


def check_relabeling(config: Config, name: str) -> None:
    """Checks the relabeling options of the strategy `name`."""
    options = config.strategy[name]
    if not 0 <= options.delta2 < 1:
        raise UserError(f"config.strategy.{name}.delta2={options.delta2}: give a number of at least 0 and below 1")
    if not 0 <= options.start < config.train.epochs:
        raise UserError(
            f"config.strategy.{name}.start={options.start:g}: relabeling would begin after the last of "
            f"config.train.epochs={config.train.epochs:g}: give an earlier epoch"
        )
    check_one_label(config, name)


def check_one_label(config: Config, name: str) -> None:
    """Raises UserError if an example has no single label: for mixed images, or several right classes."""
    if mixing := [other for other in parts(config.objective) if "mix" in load(other).claims]:
        raise UserError(
            f"config.objective='{config.objective}': {name} judges the label of an example by the prediction for it, "
            f"and {mixing[0]} mixes two examples; leave one of them out"
        )
    if config.data.target == "multi_target":
        raise UserError(
            f"config.objective='{config.objective}': {name} judges the one label of an example, and "
            "config.data.target='multi_target' counts each of several classes as right: give 'label' or 'majority'"
        )


def check_groups(config: Config, name: str) -> None:
    """Raises UserError if one of the two groups of a batch would be empty."""
    beta, size = config.strategy[name].beta, config.train.batch_size
    if not 1 <= round(beta * size) <= size - 1:
        raise UserError(
            f"config.strategy.{name}.beta={beta}: of config.train.batch_size={size} examples it leaves one of the two "
            "groups empty: give a share nearer to 0.5, or larger batches"
        )


STRATEGY = Strategy(apply=apply, claims=("memory", "targets", "remember"), needs=("classes", "images"), check=check)
