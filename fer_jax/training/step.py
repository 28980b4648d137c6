"""The compiled step: batch in, augmented on the device, one update of the state out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fer_jax.data.augment.inputs import alternate_flips
from fer_jax.engine.rng import stream_key
from fer_jax.evaluation.task import Batch, Task, model_input
from fer_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
STREAMS = ("dropout", "noise")  # random streams a model may ask for


def init_state(task: Task, tx: optax.GradientTransformation, batch: Batch, ema: bool) -> TrainState:
    """Makes the state at step 0. Call it inside a jit so that parameters are born where they live."""
    keys = {name: stream_key(task.seed, f"init/{name}") for name in ("params", *STREAMS)}
    variables = dict(task.model.init(keys, model_input(task, batch, None), train=True))
    params = variables.pop("params")
    average = {"params": params, "collections": variables} if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=variables,
        opt_state=tx.init(params),
        average=average,
    )


def train_step(
    task: Task,
    tx: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    state: TrainState,
    batch: Batch,
    *,
    accumulate: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One optimiser step on one global batch (uint8 images as stored).

    Returns:
        The new state and scalars: `loss/<term>`, `loss/total`, `accuracy`, `grad_norm`, `update_norm`,
        `learning_rate`, and what the method's `monitor` adds.
    """
    batch = prepare_targets(task, batch, state.step)
    inputs = model_input(task, batch, stream_key(task.seed, "augment", state.step), _flips(task, batch, state.step))
    keys = {name: stream_key(task.seed, name, state.step) for name in STREAMS}
    gradient = jax.value_and_grad(functools.partial(loss_and_metrics, task), has_aux=True)

    if accumulate == 1:
        (_, (collections, metrics)), grads = gradient(state.params, state.collections, inputs, keys)
    else:
        # Unrolled rather than scanned: convolutions inside a loop collapse on XLA's CPU backend.
        parts = _micro_batches(inputs, accumulate)
        collections, grads, metrics = state.collections, None, None
        for number, part in enumerate(parts):
            part_keys = {name: jax.random.fold_in(key, number) for name, key in keys.items()}
            (_, (collections, m)), g = gradient(state.params, collections, part, part_keys)
            grads = g if grads is None else jax.tree.map(jnp.add, grads, g)
            metrics = m if metrics is None else jax.tree.map(jnp.add, metrics, m)
        grads, metrics = jax.tree.map(lambda x: x / accumulate, (grads, metrics))

    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics |= {
        "grad_norm": optax.tree.norm(grads),
        "update_norm": optax.tree.norm(updates),
        "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
    }
    average = state.average
    if average is not None:
        # The usual warm-up: early on the average follows closely instead of remembering the random start.
        done = state.step.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1.0 + done) / (10.0 + done))
        fresh = {"params": params, "collections": collections}
        average = jax.tree.map(functools.partial(_follow, decay), average, fresh)
    state = state.replace(
        step=state.step + 1, params=params, collections=collections, opt_state=opt_state, average=average
    )
    return state, metrics


def loss_and_metrics(
    task: Task, params: Any, collections: Any, inputs: Batch, keys: Mapping[str, jax.Array]
) -> tuple[jax.Array, tuple[Any, Metrics]]:
    """Weighted sum of the method's terms over a batch; each term averaged once, here, over valid examples."""
    (logits, aux), updated = task.model.apply(
        {"params": params, **collections}, inputs, train=True, mutable=list(collections), rngs=dict(keys)
    )
    terms = task.method.loss(logits, aux, inputs, **task.loss_options)
    weight = inputs["weight"]
    counted = _or_one(jnp.sum(weight))
    means = {name: jnp.sum(term * weight) / counted for name, term in terms.items()}
    total = sum((means[name] * task.loss_weights[name] for name in means), start=jnp.zeros(()))
    metrics = {f"loss/{name}": mean for name, mean in means.items()} | {"loss/total": total}
    if not task.method.measures:
        valid = inputs["mask"].astype(jnp.float32)
        hits = (jnp.argmax(logits, -1) == jnp.argmax(inputs["target"], -1)).astype(jnp.float32)
        metrics["accuracy"] = jnp.sum(hits * valid) / _or_one(jnp.sum(valid))
    metrics |= {f"monitor/{k}": v for k, v in task.method.monitor(logits, aux, inputs).items()}
    metrics = jax.tree.map(lambda x: jax.lax.stop_gradient(x.astype(jnp.float32)), metrics)
    return total, (dict(updated), metrics)


def dry_loss(task: Task, state: TrainState, batch: Batch) -> jax.Array:
    """The loss of a batch: traced to see whether augmentation, model and loss accept their options."""
    inputs = model_input(task, prepare_targets(task, batch, state.step), stream_key(task.seed, "augment"))
    keys = {name: stream_key(task.seed, name) for name in STREAMS}
    return loss_and_metrics(task, state.params, state.collections, inputs, keys)[0]


def prepare_targets(task: Task, batch: Batch, step: jax.Array) -> Batch:
    """Adds what the loss reads: drawn and smoothed targets, and each example's weight (0 for padding)."""
    target = batch["target"].astype(jnp.float32)
    classes = target.shape[-1]
    if task.draw_target:
        keys = jax.random.split(stream_key(task.seed, "target", step), target.shape[0])
        log_target = jnp.log(jnp.maximum(target, 1e-30))
        target = jax.nn.one_hot(jax.vmap(jax.random.categorical)(keys, log_target), classes)
    if task.label_smoothing:
        target = smooth(target, task.label_smoothing, task.smoothing_prior)
    weight = batch["mask"].astype(jnp.float32)
    if task.class_weights is not None:
        weight = weight * jnp.asarray(task.class_weights, jnp.float32)[batch["label"]]
    return batch | {"target": target, "weight": weight}


def smooth(target: jax.Array, epsilon: float, prior: Sequence[Sequence[float]] | None) -> jax.Array:
    """Returns (1 - epsilon) t + epsilon sum_y t_y d_y for targets t [B, C] and priors d [C, C], uniform where None."""
    classes = target.shape[-1]
    if prior is None:
        return (1.0 - epsilon) * target + epsilon / classes
    d = jnp.asarray(prior, jnp.float32)
    return (1.0 - epsilon) * target + epsilon * jnp.einsum("by,yk->bk", target, d, precision="highest")


def _or_one(total: jax.Array) -> jax.Array:
    """The divisor of a mean; of nothing the mean is then 0."""
    return jnp.where(total > 0, total, 1.0)


def _flips(task: Task, batch: Batch, step: jax.Array) -> jax.Array | None:
    """Which images are mirrored, where that alternates from epoch to epoch; None where it is drawn."""
    if not task.augmentation.alternates:
        return None
    index = batch["index"]
    place = step * len(index) + jnp.arange(len(index))  # a batch may reach from one epoch into the next
    return alternate_flips(stream_key(task.seed, "flip"), index, place // task.examples)


def _micro_batches(batch: Batch, parts: int) -> list[Batch]:
    # Part k takes rows k, k + parts, ...: each device keeps its own rows when the batch is sharded.
    split = {k: v.reshape(v.shape[0] // parts, parts, *v.shape[1:]) for k, v in batch.items()}
    return [{k: v[:, part] for k, v in split.items()} for part in range(parts)]


def _follow(decay: jax.Array, average: jax.Array, fresh: jax.Array) -> jax.Array:
    if not jnp.issubdtype(fresh.dtype, jnp.floating):
        return fresh
    return decay * average + (1.0 - decay) * fresh
