"""Builds everything that training needs from a config: examples, devices, model, optimizer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.config.fields import Config
from fer_jax.config.steps import Stage, count_steps, phases, stages
from fer_jax.data.augment.augmentation import pipeline
from fer_jax.data.corrupt import degradation
from fer_jax.data.sources.clips import ClipSampler, clip_sampler
from fer_jax.data.sources.source import Source
from fer_jax.data.targets.prior import prior_matrix
from fer_jax.engine.compiler import once_options, platform_of
from fer_jax.engine.memory import check_parameters
from fer_jax.engine.mesh import check_batch, is_main, make_mesh, memory_limit, on_cpu, replicated
from fer_jax.engine.self_check import check_arithmetic
from fer_jax.errors import UserError, first_line, say_once
from fer_jax.evaluation.task import Task, corner_step, evaluation_task
from fer_jax.methods.method import ModelFields
from fer_jax.nn.lowering import traced_for
from fer_jax.training.examples import read_examples
from fer_jax.training.optimizer import make_optimizer
from fer_jax.training.state import TrainState, num_parameters
from fer_jax.training.step import dry_loss, init_state, with_partners

RESIDENT_SHARE = 0.4  # of a device's memory that data may fill
RESIDENT_ON_CPU = 4 << 30  # bytes: there the device's memory is the machine's
STEPS_PER_DISPATCH = 50  # on accelerators, at most


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that the config decides, before the first step.

    Attributes:
        config: the resolved config.
        task: what the compiled step reads.
        model_fields: fields of the model that follow from the data set's classes, in addition to `config.model`.
        mesh: the devices.
        train, validation: the examples; `validation` is what selects the model.
        tx, schedule: the optimizer and its learning rate by step.
        total_steps, eval_steps: when training ends, and how often it is evaluated.
        phase_ends: the last step of each phase but the last; the model is evaluated there.
        stages: image sizes over the run, in order; a single stage if the size never changes.
        steps_per_dispatch: number of steps in one call of the compiled program.
        resident: whether the training data are kept in device memory.
        instances: samples the training frames of clips; None if examples are images.
        label_noise: the record of changes to the training labels; None if there are none.
        template: two examples in the shape of a batch.
        memory: the method's memory of each training example at step 0; None if it has none.
    """

    config: Config
    task: Task
    model_fields: ModelFields
    mesh: Mesh
    train: Source
    validation: Source
    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    total_steps: int
    eval_steps: int
    phase_ends: tuple[int, ...]
    stages: tuple[Stage, ...]
    steps_per_dispatch: int
    resident: bool
    instances: ClipSampler | None
    label_noise: dict[str, Any] | None
    template: dict[str, jax.Array]
    memory: Any

    @property
    def images_per_step(self) -> int:
        """Images, or frames of clips, that the network sees in a step."""
        return self.config.train.batch_size * (self.instances.frames if self.instances else 1)

    def at_size(self, size: int) -> Setup:
        """Returns this setup with images of another size."""
        return dataclasses.replace(self, task=self.task.at_size(size))

    def init(self) -> TrainState:
        """Makes the state of step 0, directly on the devices of the mesh."""
        return self._first(np.int32(self.config.seed), self.memory)

    def abstract_state(self) -> TrainState:
        """Returns the state's shapes, types and shardings without computing anything."""
        where = replicated(self.mesh)
        shapes = self._first.eval_shape(np.int32(0), self.memory)
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes)

    @functools.cached_property
    def _first(self) -> Any:
        """The program of `init`, kept: shapes and values come from one tracing of it, and all seeds share it."""

        def first(seed: Any, memory: Any) -> TrainState:
            task = dataclasses.replace(self.task, seed=seed)
            return init_state(task, self.tx, self.template, self.config.train.ema_decay > 0, memory)

        where = replicated(self.mesh)
        born = traced_for(platform_of(self.mesh), first)
        return jax.jit(born, out_shardings=where, compiler_options=once_options(self.mesh))


def make_setup(config: Config) -> Setup:
    """Checks the config of an experiment, reads the data and builds model and optimizer.

    Raises:
        UserError: if the config is invalid, or does not fit the data or the devices.
    """
    check_config(config)
    mesh = make_mesh(config.train.platform, config.train.devices)
    check_arithmetic(mesh)
    check_batch(mesh, config.train.batch_size, config.train.accumulate)
    train, validation, label_noise = read_examples(config)
    _note_colors(config, train)
    for text in config.evaluation.degraded:  # before training, not after it
        degradation.check_size(text, train.picture_shape)
    fields = methods.of(config).model_fields(config, train.classes)
    task = make_task(config, train, fields, accelerated=not on_cpu(mesh))
    drawn = _clip_sampler(config, train, task)
    steps_per_epoch = len(drawn or train) / config.train.batch_size
    task = dataclasses.replace(task, steps_per_epoch=steps_per_epoch)
    total, eval_steps = (1, 1) if task.method.fit else count_steps(config, steps_per_epoch)
    sizes, resident = stages(config, total), _resident(config.data.path, train, mesh)
    if task.method.partners and not resident:
        raise UserError(
            f"config.data.path={config.data.path}: {config.method} looks up partners for the examples of a batch, and "
            "needs the training data in device memory: use a smaller data set, or 'auto'"
        )
    memory, template = None, _template(task, train, drawn)
    if task.method.memory:
        draw = np.random.default_rng(config.seed).uniform(size=len(train)).astype(np.float32)
        stored = {k: v for k, v in train.arrays.items() if k != "image"}
        memory = task.method.memory(stored | {"draw": draw, "target": train.targets()})
    shapes = _dry_run(config, task, template, memory, [stage.size for stage in sizes[:-1]], mesh)
    tx, schedule = make_optimizer(config, shapes.params, total, steps_per_epoch)
    return Setup(
        config=config,
        task=task,
        model_fields=fields,
        mesh=mesh,
        train=train,
        validation=validation,
        # The parameters of a fitted method are set before its one step, which measures the loss.
        tx=optax.set_to_zero() if task.method.fit else tx,
        schedule=schedule,
        total_steps=total,
        eval_steps=eval_steps,
        stages=sizes,
        phase_ends=tuple(phase.end for phase in phases(config, total)[:-1]),
        steps_per_dispatch=config.train.steps_per_dispatch or (1 if on_cpu(mesh) else _evenly(eval_steps)),
        resident=resident,
        instances=drawn,
        label_noise=label_noise,
        template=template,
        memory=memory,
    )


def memory_advice(config: Config) -> str:
    """Returns advice for an error message: which fields to change so that training needs less memory."""
    path = "" if config.data.path in ("stream", "disk") else ", or set config.data.path=stream"
    return (
        f"give a smaller config.train.batch_size than {config.train.batch_size} or config.evaluation.batch_size than "
        f"{config.evaluation.batch_size}, a larger config.train.accumulate than {config.train.accumulate}{path}"
    )


def _note_colors(config: Config, train: Source) -> None:
    """Notes that the color operations of a policy have no effect on gray pictures."""
    policy = pipeline(config)[0].policy
    if train.picture_shape[-1] == 1 and policy and "svhn" not in policy and is_main():  # SVHN's table has none anyway
        say_once(f"config.augmentation.train: '{policy}' applies no color operations: {train.name} is gray")


def _dry_run(config: Config, task: Task, template: Any, memory: Any, sizes: Sequence[int], mesh: Mesh) -> TrainState:
    """Traces model and loss, so that they raise on invalid options before anything is written.

    Returns:
        The shapes of a state without optimizer.

    Raises:
        UserError: also if a model that is evaluated at another size cannot train at one of `sizes`.
    """
    init = functools.partial(init_state, task, optax.identity(), ema=False)
    shapes = jax.eval_shape(init, template, memory=memory)
    check_parameters(num_parameters(shapes.params), mesh)
    jax.eval_shape(functools.partial(dry_loss, task), shapes, template)
    if task.corner_evaluation:
        jax.eval_shape(functools.partial(corner_step, task), shapes.variables(), template, jnp.int32(0))
    for size in sizes:
        try:
            jax.eval_shape(functools.partial(dry_loss, task.at_size(size)), shapes, template)
        except (flax.errors.ScopeParamShapeError, TypeError, ValueError) as error:
            raise UserError(
                f"config.data.resolutions: {config.method} cannot train at {size} pixels and "
                f"evaluate at {config.data.image_size} ({first_line(error)}); give ()"
            ) from error
    return shapes


def _clip_sampler(config: Config, train: Source, task: Task) -> ClipSampler | None:
    """Returns what draws frames from clips; None for images."""
    if not train.frames:
        return None
    return clip_sampler(
        train.arrays,
        train.frames["frame_mask"],
        sampling=config.data.clip_sampling,
        frames=config.data.clip_frames,
        single=task.method.single_frames(task.model),
        seed=config.seed,
    )


def _template(task: Task, train: Source, drawn: ClipSampler | None) -> dict[str, jax.Array]:
    """Two examples in the shape of a batch."""
    batch = {"target": jnp.zeros((2, len(train.classes)))} | {k: jnp.asarray(v[:2]) for k, v in train.arrays.items()}
    batch |= {"mask": jnp.ones(2, bool)}
    if task.method.partners:
        batch |= with_partners(batch, batch)
    if drawn is None:
        return batch
    shape = (len(batch["mask"]), drawn.frames)
    frames = {name: jnp.zeros((*shape, *values.shape[1:]), values.dtype) for name, values in train.shown_frames.items()}
    return batch | frames | {"frame_mask": jnp.ones(shape, bool)}


def make_task(config: Config, train: Source, fields: ModelFields, accelerated: bool) -> Task:
    """Builds the method's model for the classes of `train`."""
    task = evaluation_task(config, len(train.classes), config.model.to_dict() | dict(fields.fields), accelerated)
    class_weights = None
    if config.data.class_weights:
        counts = np.maximum(train.class_counts(), 1)
        power = config.data.class_weight_power
        class_weights = tuple(float(w) for w in (counts.sum() / (len(counts) * counts)) ** power)
    prior = None
    if config.data.smoothing_prior == "ferplus":
        prior = tuple(map(tuple, prior_matrix(train.classes).tolist()))
    return dataclasses.replace(
        task,
        label_smoothing=config.data.label_smoothing,
        smoothing_prior=prior,
        draw_target=config.data.target == "probability",
        class_weights=class_weights,
        seed=config.seed,
        examples=0 if config.data.balanced_sampling else len(train),
    )


def _evenly(eval_steps: int) -> int:
    """Steps per dispatch, so that few are left over, to be made one by one, before an evaluation."""
    return max(1, eval_steps // -(-eval_steps // STEPS_PER_DISPATCH))


def _resident(path: str, train: Source, mesh: Mesh) -> bool:
    """Whether the training data go to the device; says why not, unless that is what was asked for."""
    if train.on_disk:
        if path != "disk":
            _say(
                f"config.data.path={path}: {train.name} has {train.nbytes / 2**30:.1f} GiB of pixels and stays on disk"
            )
        return False
    limit = memory_limit(mesh)
    room = RESIDENT_ON_CPU if limit is None else int(limit * RESIDENT_SHARE)
    if path != "stream" and train.nbytes > room:
        _say(
            f"config.data.path={path}: {train.nbytes / 2**30:.1f} GiB of training data do not fit the "
            f"{room / 2**30:.1f} GiB of device memory set aside for data; streaming instead"
        )
    return path != "stream" and train.nbytes <= room


def _say(text: str) -> None:
    if is_main():
        print(text, flush=True)
