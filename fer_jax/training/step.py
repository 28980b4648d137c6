"""The compiled training step: augments a batch into views, runs the model on them and updates the state once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fer_jax.data.augment.inputs import alternate_flips, mirrored, turned
from fer_jax.engine.rng import stream_key
from fer_jax.evaluation.task import Batch, Task, model_input, view_input
from fer_jax.methods.method import Clock, Output, Outputs, View
from fer_jax.methods.rows import mean_where
from fer_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
Keys = Mapping[str, jax.Array]
STREAMS = ("dropout", "noise")  # random streams that a model may ask for
PARTNER = "partner_"  # what the fields of an example's partner begin with in a batch


def init_state(task: Task, tx: optax.GradientTransformation, batch: Batch, ema: bool, memory: Any = None) -> TrainState:
    """Makes the state at step 0. Call it inside jit, so that parameters are created directly on their devices."""
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
        memory=memory,
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
    """One optimizer step on one global batch (uint8 images as stored).

    Returns:
        The new state and scalars: `loss/<term>`, `loss/total`, `accuracy`, `grad_norm`, `update_norm`,
        `learning_rate`, `selected` if the method selects examples, `noise_metrics` if the true labels are known, and
        `monitor/<name>` for what the method monitors.
    """
    clock = clock_at(task, state.step)
    views = draw_views(task, batch, state.memory, clock)
    keys = {name: stream_key(task.seed, name, state.step) for name in STREAMS}
    grads, collections, metrics, outputs = gradients(task, state, views, clock, keys, accumulate)
    if task.method.fit:  # it was fitted to features with these running statistics
        collections = state.collections
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics |= {
        "grad_norm": optax.tree.norm(grads),
        "update_norm": optax.tree.norm(updates),
        "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
    }
    memory = state.memory
    if task.method.remember and outputs:
        memory = task.method.remember(memory, jax.lax.stop_gradient(outputs), views[0], clock)
    state = state.replace(
        step=state.step + 1,
        params=params,
        collections=collections,
        opt_state=opt_state,
        average=_averaged(state, params, collections, ema_decay),
        memory=memory,
    )
    return state, metrics


def with_partners(batch: Batch, partners: Batch) -> Batch:
    """Adds the fields of each example's partner to a stored batch."""
    return batch | {f"{PARTNER}{name}": values for name, values in partners.items()}


def partner_rows(task: Task, state: TrainState, batch: Batch) -> jax.Array:
    """Returns the rows of the training set that are the partners of a batch."""
    assert task.method.partners is not None
    return task.method.partners(batch["index"], state.memory, stream_key(task.seed, "partners", state.step))


def clock_at(task: Task, step: jax.Array) -> Clock:
    """Returns the clock of the step that follows `step` finished steps."""
    return Clock(step, step.astype(jnp.float32) / task.steps_per_epoch)


def draw_views(task: Task, batch: Batch, memory: Any, clock: Clock) -> list[Batch]:
    """Makes the model's inputs from a stored batch: one batch per view, and one for the partners, if any."""
    prepare = functools.partial(prepare_targets, task, memory=memory, clock=clock)
    own = {name: values for name, values in batch.items() if not name.startswith(PARTNER)}
    own = prepare(own)
    key = stream_key(task.seed, "augment", clock.step)
    flips = _flips(task, own, clock.step)
    if any(view.rotate for view in task.method.views):
        turn_key = stream_key(task.seed, "turn", clock.step)
        own["turn"] = jax.random.uniform(turn_key, own["index"].shape, minval=-1.0, maxval=1.0)
    views = [view_input(task, number, own, key, flips) for number in range(len(task.method.views))]
    if task.method.mix:
        views = [dict(task.method.mix(view, stream_key(task.seed, "mix", clock.step))) for view in views]
    views = [_posed(task, view, inputs) for view, inputs in zip(task.method.views, views, strict=True)]
    if task.method.partners:
        theirs = prepare({n.removeprefix(PARTNER): v for n, v in batch.items() if n.startswith(PARTNER)})
        partner_key = stream_key(task.seed, "augment/partners", clock.step)
        views.append(view_input(task, 0, theirs, partner_key, None))
        fields = {f"{PARTNER}{name}": values for name, values in theirs.items() if name not in ("image", "frames")}
        views[:-1] = [view | fields for view in views[:-1]]
    return views


def prepare_targets(task: Task, batch: Batch, memory: Any, clock: Clock) -> Batch:
    """Adds what the loss reads: relabeled, drawn and smoothed targets, and each example's weight (0 for padding)."""
    target = batch["target"] if "target" in batch else jax.nn.one_hot(batch["label"], task.model.num_classes)
    batch = batch | {"target": target.astype(jnp.float32)}
    if task.method.targets:
        batch = dict(task.method.targets(memory, batch, clock))
    target = batch["target"]
    classes = target.shape[-1]
    if task.draw_target:
        keys = jax.random.split(stream_key(task.seed, "target", clock.step), target.shape[0])
        log_target = jnp.log(jnp.maximum(target, 1e-30))
        target = jax.nn.one_hot(jax.vmap(jax.random.categorical)(keys, log_target), classes)
    if task.label_smoothing:
        target = smooth(target, task.label_smoothing, task.smoothing_prior)
    weight = batch["mask"].astype(jnp.float32)
    if task.class_weights is not None:
        given = batch["target"]
        names_one = jnp.max(given, axis=-1) == jnp.sum(given, axis=-1)  # a relabeled example is of its new class
        label = jnp.where(names_one, jnp.argmax(given, axis=-1), batch["label"])
        weight = weight * jnp.asarray(task.class_weights, jnp.float32)[label]
    return batch | {"target": target, "weight": weight}


def smooth(target: jax.Array, epsilon: float, prior: Sequence[Sequence[float]] | None) -> jax.Array:
    """Returns (1 - epsilon) t + epsilon sum_y t_y d_y for targets t [B, C] and priors d [C, C], uniform where None."""
    classes = target.shape[-1]
    if prior is None:
        return (1.0 - epsilon) * target + epsilon / classes
    d = jnp.asarray(prior, jnp.float32)
    return (1.0 - epsilon) * target + epsilon * jnp.einsum("by,yk->bk", target, d, precision="highest")


def gradients(
    task: Task, state: TrainState, views: list[Batch], clock: Clock, keys: Keys, accumulate: int
) -> tuple[Any, Any, Metrics, Outputs | None]:
    """Returns (gradients, collections, metrics, outputs) of a batch, or of its micro-batches one after another."""
    gradient = jax.value_and_grad(functools.partial(loss_and_metrics, task, clock), has_aux=True)
    if accumulate == 1:
        (_, (collections, metrics, outputs)), grads = gradient(state.params, state.collections, views, keys)
        return grads, collections, metrics, outputs
    # Unrolled rather than scanned: convolutions inside a loop collapse on XLA's CPU backend.
    collections, grads, metrics = state.collections, None, None
    for number in range(accumulate):
        part = [_micro_batch(view, number, accumulate) for view in views]
        part_keys = {name: jax.random.fold_in(key, number) for name, key in keys.items()}
        (_, (collections, m, _)), g = gradient(state.params, collections, part, part_keys)
        grads = g if grads is None else jax.tree.map(jnp.add, grads, g)
        metrics = m if metrics is None else jax.tree.map(jnp.add, metrics, m)
    grads, metrics = jax.tree.map(lambda x: x / accumulate, (grads, metrics))
    return grads, collections, metrics, None


def loss_and_metrics(
    task: Task, clock: Clock, params: Any, collections: Any, views: list[Batch], keys: Keys
) -> tuple[jax.Array, tuple[Any, Metrics, Outputs | None]]:
    """Weighted sum of the method's terms over a batch; each term averaged once, here, over valid examples."""
    method, batch = task.method, views[0]
    outputs, collections = forward(task, params, collections, views, keys)
    terms = method.loss(outputs, batch, clock, **task.loss_options)
    weight, metrics, chosen = batch["weight"], {}, None
    if method.select:
        weighted = {name: task.loss_weights[name] * term for name, term in terms.items()}
        chosen = jax.lax.stop_gradient(method.select(weighted, outputs, batch, clock))
        metrics["selected"] = jnp.sum(chosen * weight) / _or_one(jnp.sum(weight))
        weight = weight * chosen
    counted = _or_one(jnp.sum(weight))
    means = {name: jnp.sum(term * weight) / counted for name, term in terms.items()}
    total = sum((means[name] * task.loss_weights[name] for name in means), start=jnp.zeros(()))
    metrics |= {f"loss/{name}": mean for name, mean in means.items()} | {"loss/total": total}
    logits, aux = outputs[0]
    if not method.measures:
        metrics["accuracy"] = training_accuracy(logits, batch)
        if "clean_label" in batch and not method.mix:
            metrics |= noise_metrics(logits, batch, chosen)
    metrics |= {f"monitor/{k}": v for k, v in method.monitor(logits, aux, batch).items()}
    metrics = jax.tree.map(lambda x: jax.lax.stop_gradient(x.astype(jnp.float32)), metrics)
    return total, (collections, metrics, outputs if method.remember else None)


def forward(
    task: Task, params: Any, collections: Any, views: list[Batch], keys: Keys
) -> tuple[Outputs, dict[str, Any]]:
    """Passes the views through the model; returns their outputs and the collections after the last pass."""

    def apply(inputs: Batch, number: int) -> tuple[Any, dict[str, Any]]:
        rngs = {name: jax.random.fold_in(key, number) if number else key for name, key in keys.items()}
        variables = {"params": params, **collections}
        answer, updated = task.model.apply(variables, inputs, train=True, mutable=list(collections), rngs=rngs)
        return answer, dict(updated)

    outputs: list[Output] = []
    described = [*task.method.views, View()][: len(views)]  # partners are passed as a view of its own
    for number, group in enumerate(_passes(views, described)):
        stacked = group[0] if len(group) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *group)
        answer, updated = apply(stacked, number)
        alone = jax.eval_shape(functools.partial(apply, number=number), group[0])[0] if len(group) > 1 else answer
        outputs += [Output(*part) for part in _unstacked(answer, alone, len(group))]
        if described[len(outputs) - 1].stats != "frozen":
            collections = updated
    return tuple(outputs), collections


def training_accuracy(logits: jax.Array, batch: Batch) -> jax.Array:
    """The fraction of valid examples whose largest target is predicted; mixed examples count by `target_hits`."""
    valid = batch["mask"].astype(jnp.float32)
    predicted = jnp.argmax(logits, -1)
    if "target_hits" in batch:
        hits = jnp.take_along_axis(batch["target_hits"], predicted[:, None], axis=-1)[:, 0]
    else:
        hits = (predicted == jnp.argmax(batch["target"], -1)).astype(jnp.float32)
    return jnp.sum(hits * valid) / _or_one(jnp.sum(valid))


def noise_metrics(logits: jax.Array, batch: Batch, chosen: jax.Array | None) -> Metrics:
    """The fractions of wrongly labeled examples that the model predicts as labeled, and that the method selected."""
    wrong = batch["mask"] & (batch["label"] != batch["clean_label"])
    repeated = jnp.argmax(logits, axis=-1) == batch["label"]
    metrics = {"memorized": mean_where(repeated.astype(jnp.float32), wrong)}
    return metrics if chosen is None else metrics | {"selected_wrong": mean_where(chosen, wrong)}


def dry_loss(task: Task, state: TrainState, batch: Batch) -> jax.Array:
    """The loss of a batch, to be traced only: checks that augmentation, model and loss accept their options."""
    clock = clock_at(task, state.step)
    keys = {name: stream_key(task.seed, name) for name in STREAMS}
    views = draw_views(task, batch, state.memory, clock)
    return loss_and_metrics(task, clock, state.params, state.collections, views, keys)[0]


def _posed(task: Task, view: View, inputs: Batch) -> Batch:
    """Mirrors and turns a view; after mixing, so that all views of an example are of one mixture."""
    if view.mirror:
        inputs = mirrored(inputs, task.point_mirror)
    return turned(inputs, view.rotate * inputs["turn"]) if view.rotate else inputs


def _passes(views: list[Batch], described: Sequence[View]) -> list[list[Batch]]:
    """Groups views that go through the model in one pass."""
    groups: list[list[Batch]] = []
    for inputs, view in zip(views, described, strict=True):
        if view.stats == "joint" and groups:
            groups[-1].append(inputs)
        else:
            groups.append([inputs])
    return groups


def _unstacked(answer: Any, alone: Any, count: int) -> list[Any]:
    """Splits the outputs of one pass into those of `count` views; an output with the shape it has for one view `alone`
    is shared by all of them.
    """

    def part(number: int, x: jax.Array, of_one: Any) -> jax.Array:
        return x if x.shape == of_one.shape else jnp.split(x, count)[number]

    return [jax.tree.map(functools.partial(part, number), answer, alone) for number in range(count)]


def _averaged(state: TrainState, params: Any, collections: Any, ema_decay: float) -> Any:
    """The moving average after this step. Early on it follows closely instead of remembering the random start."""
    if state.average is None:
        return None
    done = state.step.astype(jnp.float32)
    decay = jnp.minimum(ema_decay, (1.0 + done) / (10.0 + done))
    fresh = {"params": params, "collections": collections}
    return jax.tree.map(functools.partial(_follow, decay), state.average, fresh)


def _follow(decay: jax.Array, average: jax.Array, fresh: jax.Array) -> jax.Array:
    if not jnp.issubdtype(fresh.dtype, jnp.floating):
        return fresh
    return decay * average + (1.0 - decay) * fresh


def _or_one(total: jax.Array) -> jax.Array:
    """The divisor of a mean; the mean of nothing is then 0."""
    return jnp.where(total > 0, total, 1.0)


def _flips(task: Task, batch: Batch, step: jax.Array) -> jax.Array | None:
    """Which images are mirrored, if mirroring alternates between epochs; None if it is random."""
    if not task.augmentation.alternates:
        return None
    index = batch["index"]
    place = step * len(index) + jnp.arange(len(index))  # a batch may reach from one epoch into the next
    return alternate_flips(stream_key(task.seed, "flip"), index, place // task.examples)


def _micro_batch(batch: Batch, number: int, parts: int) -> Batch:
    """Rows number, number + parts, ...: each device keeps its own rows when the batch is sharded."""
    return {k: v.reshape(v.shape[0] // parts, parts, *v.shape[1:])[:, number] for k, v in batch.items()}
