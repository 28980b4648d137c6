"""The task that the compiled programs of training and evaluation share, and the evaluation programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from fer_jax import methods
from fer_jax.data.augment.augmentation import Augmentation, pipeline
from fer_jax.data.augment.inputs import augmented_inputs, corner_view, mirrored, plain_inputs
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.data.sources.points import MIRROR
from fer_jax.methods.method import Method

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that the compiled step reads besides the state and the batch, as plain values.

    Attributes:
        method: provides the loss terms and metrics of the step, and the scores of evaluation.
        model: the linen module.
        loss_weights: weight of each named term.
        loss_options: keyword arguments of `method.loss`.
        augmentation: what happens to a training image.
        preprocessing: what happens to every image; its size is the side of the network's input.
        label_smoothing: epsilon, the fraction of a target that is replaced by the prior of its class.
        smoothing_prior: the priors [C, C], a row per class; None for the uniform prior.
        draw_target: replace each target by one class drawn from it (FER+'s probability rule).
        class_weights: weight of an example by class, or None.
        flip_evaluation: average each prediction with that of the mirrored image.
        corner_evaluation: average each prediction with those of magnified corners, mirrored and not.
        seed: root of all random streams; an array [] inside of a program that takes it as an argument.
        examples: how many there are in an epoch; 0 where examples are drawn without epochs.
        steps_per_epoch: batches in an epoch, not a whole number in general.
        profiles: names of per-example intermediates, or of fields of the network's input, that evaluation returns if
            the model has them.
        point_mirror: for each of the batch's `points`, the index of the point that replaces it on a mirrored face.
    """

    method: Method
    model: Any
    loss_weights: Mapping[str, float]
    loss_options: Mapping[str, Any]
    augmentation: Augmentation
    preprocessing: Preprocessing
    label_smoothing: float = 0.0
    smoothing_prior: tuple[tuple[float, ...], ...] | None = None
    draw_target: bool = False
    class_weights: tuple[float, ...] | None = None
    flip_evaluation: bool = False
    corner_evaluation: bool = False
    seed: int | jax.Array = 0
    examples: int = 0
    steps_per_epoch: float = 1.0
    profiles: tuple[str, ...] = ()
    point_mirror: tuple[int, ...] = ()

    def at_size(self, size: int) -> Task:
        """Returns this task with inputs of another size."""
        return dataclasses.replace(self, preprocessing=dataclasses.replace(self.preprocessing, size=size))


def evaluation_task(config: Any, num_classes: int, fields: Mapping[str, Any], accelerated: bool) -> Task:
    """Builds the task that evaluates a model; needs no data set.

    Args:
        config: an experiment's.
        num_classes: C.
        fields: of the model, those of `config.model` among them.
        accelerated: whether the devices are accelerators rather than CPUs.
    """
    method = methods.of(config)
    bfloat16 = config.train.dtype == "bfloat16" or (config.train.dtype == "auto" and accelerated)
    augmentation, preprocessing = pipeline(config)
    return Task(
        method=method,
        model=method.build(num_classes, fields, jnp.bfloat16 if bfloat16 else jnp.float32),
        loss_weights=dict(method.weights) | config.loss.weights.to_dict(),
        loss_options=config.loss.options.to_dict(),
        augmentation=augmentation,
        preprocessing=preprocessing,
        flip_evaluation=config.evaluation.flip,
        corner_evaluation=config.evaluation.views == "corners",
        profiles=(*method.profiles, "affect"),
        point_mirror=MIRROR.get(config.data.points, ()),
    )


def model_input(task: Task, batch: Batch, key: jax.Array | None, flips: jax.Array | None = None) -> Batch:
    """Returns the batch with the network's inputs: augmented if there is a key, else as in evaluation."""
    if key is None:
        return plain_inputs(batch, task.preprocessing)
    return augmented_inputs(key, batch, task.augmentation, task.preprocessing, mirror=task.point_mirror, flips=flips)


def view_input(task: Task, number: int, batch: Batch, key: jax.Array, flips: jax.Array | None) -> Batch:
    """Returns the network's input for one of the method's views of a training batch, neither mirrored nor turned."""
    view = task.method.views[number]
    own, without = ("erase",) * (view.erase == "own"), ("noise",) * (not view.noise)
    if own or without:
        task = dataclasses.replace(task, augmentation=task.augmentation.another(number, own, without))
    if view.size != 1.0:
        task = task.at_size(round(view.size * task.preprocessing.size))
    return model_input(task, batch, key, flips)


def eval_step(task: Task, variables: Any, batch: Batch) -> dict[str, jax.Array]:
    """Returns `logits` [B, C] and the named profiles [B, M] of one batch, without any randomness.

    A method that predicts no classes has its measures [B] instead of logits. With `flip_evaluation` the logits are the
    logarithm of the mean of both views' probabilities.
    """
    inputs = model_input(task, batch, None)
    logits, aux = task.model.apply(variables, inputs, train=False)
    if task.flip_evaluation:
        flipped, _ = task.model.apply(variables, mirrored(inputs, task.point_mirror), train=False)
        logits = mean_of_views([logits, flipped])
    seen = inputs | aux
    profiles = {k: seen[k].astype(jnp.float32) for k in task.profiles if k in seen}
    if task.method.measures:
        return task.method.measure(logits, aux, inputs) | profiles
    return {"logits": logits.astype(jnp.float32)} | profiles


def mean_of_views(views: list[jax.Array]) -> jax.Array:
    """Logits of the mean of the views' probabilities; the logits of a single view are unchanged."""
    if len(views) == 1:
        return views[0]
    return jax.nn.logsumexp(jnp.stack([jax.nn.log_softmax(v) for v in views]), axis=0) - jnp.log(float(len(views)))


def corner_step(task: Task, variables: Any, batch: Batch, number: jax.Array) -> jax.Array:
    """Returns the log-probabilities [B, C] of the view `number` of a batch (see `data.inputs.corner_view`)."""
    inputs = corner_view(model_input(task, batch, None), number, task.point_mirror)
    logits, _ = task.model.apply(variables, inputs, train=False)
    return jax.nn.log_softmax(logits.astype(jnp.float32))
