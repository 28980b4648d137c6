"""From a config to the things that training needs: data, devices, model, optimiser."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable
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
from fer_jax.config.protocol import fold_number, part_to_test, split_to_test
from fer_jax.config.steps import Stage, count_steps, phases, stages
from fer_jax.data.augment.augmentation import pipeline
from fer_jax.data.corrupt import degradation
from fer_jax.data.corrupt.occlusion import with_occluded_copies
from fer_jax.data.sources.clips import ClipSampler, clip_sampler
from fer_jax.data.sources.points import MIRROR
from fer_jax.data.sources.source import Source, check_split, image_names, load, prepared_builder, split_off, take_fold
from fer_jax.data.targets.label_noise import with_label_noise
from fer_jax.data.targets.prior import prior_matrix
from fer_jax.engine.compiler import once_options, platform_of
from fer_jax.engine.hosts import agree
from fer_jax.engine.memory import check_batches
from fer_jax.engine.mesh import check_batch, is_main, make_mesh, memory_limit, on_cpu, on_main, replicated
from fer_jax.errors import UserError, first_line
from fer_jax.evaluation.task import Task, corner_step
from fer_jax.methods.method import ModelFields
from fer_jax.nn.lowering import traced_for
from fer_jax.training.optimizer import make_optimizer
from fer_jax.training.state import TrainState
from fer_jax.training.step import dry_loss, init_state, with_partners

RESIDENT_SHARE = 0.4  # of a device's memory that data may fill
RESIDENT_ON_CPU = 4 << 30  # bytes: there the device's memory is the machine's
TRAINING_ROWS = "training_rows.json"  # which examples the memory of a run belongs to
STEPS_PER_DISPATCH = 50  # on accelerators, at most


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that the config decides, before the first step.

    Attributes:
        config: the resolved config.
        task: what the compiled step reads.
        model_fields: what the model got from the classes of the data set, beside `config.model`.
        mesh: the devices.
        train, validation: the examples; `validation` is what selects the model.
        tx, schedule: the optimiser and its learning rate by step.
        steps_per_epoch: batches in an epoch, not a whole number in general.
        total_steps, eval_steps: when training ends, and how often it is evaluated.
        phase_ends: the last steps of the phases before the last one; each is evaluated.
        stages: the sizes of the images, in order; one where it never changes.
        steps_per_dispatch: how many steps one call of the compiled program makes.
        resident: whether the training data live on the device.
        instances: of clips, what an epoch draws frames from; None where examples are images.
        label_noise: the record of what was done to the training labels; None where they are the data set's own.
        memory: what the method remembers of each training example at step 0.
    """

    config: Config
    task: Task
    model_fields: ModelFields
    mesh: Mesh
    train: Source
    validation: Source
    tx: optax.GradientTransformation
    schedule: Callable[[Any], Any]
    steps_per_epoch: float
    total_steps: int
    eval_steps: int
    phase_ends: tuple[int, ...]
    stages: tuple[Stage, ...]
    steps_per_dispatch: int
    resident: bool
    instances: ClipSampler | None
    label_noise: dict[str, Any] | None = None
    memory: Any = None

    @property
    def files(self) -> dict[str, Any]:
        """JSON values that the work directory keeps, by file name."""
        rows = {} if self.memory is None else {TRAINING_ROWS: rows_digest(self.train)}
        return {**self.model_fields.files, **rows}

    @property
    def images_per_step(self) -> int:
        """Images, or frames of clips, that the network sees in a step."""
        return self.config.train.batch_size * (self.instances.frames if self.instances else 1)

    def at_size(self, size: int) -> Setup:
        """Returns the same with images of another size."""
        return dataclasses.replace(self, task=self.task.at_size(size))

    def template(self) -> dict[str, jax.Array]:
        """Returns two examples in the shape of a batch."""
        return _template(self.task, self.train, self.instances)

    def init(self) -> TrainState:
        """Makes the state of step 0, born on the mesh."""
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
            return init_state(task, self.tx, self.template(), self.config.train.ema_decay > 0, memory)

        where = replicated(self.mesh)
        born = traced_for(platform_of(self.mesh), first)
        return jax.jit(born, out_shardings=where, compiler_options=once_options(self.mesh))


def make_setup(config: Config, training: bool = True) -> Setup:
    """Checks the config, loads the data and builds model and optimiser.

    Args:
        config: an experiment's.
        training: whether it is for training (then the devices must be able to share the batch).

    Raises:
        UserError: for whatever in the config, the data or the devices does not fit.
    """
    check_config(config)
    mesh = make_mesh(config.train.platform, config.train.devices)
    if training:
        check_batch(mesh, config.train.batch_size, config.train.accumulate, "config.train.batch_size")
    train, validation = _training_and_validation(config)
    agree("data", {"training": _digest(train), "validation": _digest(validation)}, "prepare the same on every host")
    check_batches(config, train.picture_shape, mesh, training)
    for text in config.evaluation.degraded:  # before training, not after it
        degradation.check_size(text, train.picture_shape)
    noise = None
    if config.data.label_noise or config.data.label_noise_file:
        names = image_names(config.data, train.split) if config.data.label_noise_file else ()
        train, noise = with_label_noise(train, config.data, names)
    if config.data.occluded_copies:  # after the split: no copy of a held-out example trains
        train = with_occluded_copies(train, config.seed)
    accelerated = not on_cpu(mesh)
    fields = methods.of(config).model_fields(config, train.classes)
    task = make_task(config, train, fields, accelerated)

    drawn = _instances(config, train, task)
    steps_per_epoch = len(drawn or train) / config.train.batch_size
    task = dataclasses.replace(task, steps_per_epoch=steps_per_epoch)
    total, eval_steps = (1, 1) if task.method.fit else count_steps(config, steps_per_epoch)
    memory = _memory(task, train)
    template = _template(task, train, drawn)
    shapes = jax.eval_shape(functools.partial(init_state, task, optax.identity(), ema=False), template, memory=memory)
    # What the model or the loss refuses is refused here, before anything is written.
    jax.eval_shape(functools.partial(dry_loss, task), shapes, template)
    sizes = stages(config, total)
    for stage in sizes[:-1]:
        _check_size(config, shapes, template, task.at_size(stage.size))
    if task.corner_evaluation:
        jax.eval_shape(functools.partial(corner_step, task), shapes.variables(), template, jnp.int32(0))
    resident = _resident(config.data.path, train, mesh)
    if task.method.partners and not resident:
        raise UserError(
            f"config.data.path={config.data.path}: {config.method} looks up other examples for those of a batch, which "
            "needs the training data in device memory: use a smaller data set, or 'device'"
        )
    tx, schedule = make_optimizer(config, shapes.params, total, steps_per_epoch)
    if task.method.fit:
        tx = optax.set_to_zero()  # `fit` has set the parameters; the one step measures the loss
    return Setup(
        config=config,
        task=task,
        model_fields=fields,
        mesh=mesh,
        train=train,
        validation=validation,
        tx=tx,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        eval_steps=eval_steps,
        stages=sizes,
        phase_ends=tuple(phase.end for phase in phases(config, total)[:-1]),
        steps_per_dispatch=config.train.steps_per_dispatch or (_evenly(eval_steps) if accelerated else 1),
        resident=resident,
        instances=drawn,
        label_noise=noise,
        memory=memory,
    )


def rows_digest(train: Source) -> dict[str, str]:
    """Returns the SHA-256 of the training examples: of the data set, and which of its rows, with which labels."""
    digest = hashlib.sha256(train.data_digest.encode())
    digest.update(np.ascontiguousarray(train.rows, "<i8").tobytes())
    digest.update(np.ascontiguousarray(train.arrays["label"], "<i8").tobytes())
    return {"sha256": digest.hexdigest()}


def _memory(task: Task, train: Source) -> Any:
    """What the method remembers of each training example at step 0; None where it remembers nothing."""
    if task.method.memory is None:
        return None
    return task.method.memory({k: v for k, v in train.arrays.items() if k != "image"})


def _check_size(config: Config, state: TrainState, template: Any, task: Task) -> None:
    """Refuses to begin with smaller images where the model's parameters depend on their size."""
    try:
        jax.eval_shape(functools.partial(dry_loss, task), state, template)
    except (flax.errors.ScopeParamShapeError, TypeError, ValueError) as error:
        raise UserError(
            f"config.data.resolutions: {config.method} cannot train at {task.preprocessing.size} pixels what it "
            f"evaluates at {config.data.image_size} ({first_line(error)}); give ()"
        ) from error


def _instances(config: Config, train: Source, task: Task) -> ClipSampler | None:
    """What is drawn of clips; None for images."""
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
    batch = {k: jnp.asarray(v[:2]) for k, v in train.arrays.items()} | {"mask": jnp.ones(2, bool)}
    if task.method.partners:
        batch |= with_partners(batch, batch)
    if drawn is None:
        return batch
    frames = jnp.zeros((len(batch["mask"]), drawn.frames, *train.picture_shape), jnp.uint8)
    return batch | {"frames": frames, "frame_mask": jnp.ones(frames.shape[:2], bool)}


def make_task(config: Config, train: Source, fields: ModelFields, accelerated: bool) -> Task:
    """Builds the method's model for the classes of `train`."""
    method = methods.of(config)
    bfloat16 = config.train.dtype == "bfloat16" or (config.train.dtype == "auto" and accelerated)
    dtype = jnp.bfloat16 if bfloat16 else jnp.float32
    model = method.build(len(train.classes), config.model.to_dict() | dict(fields.fields), dtype)
    augmentation, preprocessing = pipeline(config)
    class_weights = None
    if config.data.class_weights:
        counts = np.maximum(train.class_counts(), 1)
        power = config.data.class_weight_power
        class_weights = tuple(float(w) for w in (counts.sum() / (len(counts) * counts)) ** power)
    prior = None
    if config.data.smoothing_prior != "uniform":
        literal = config.data.smoothing_literal
        votes = train.arrays.get(config.data.votes)
        rows = prior_matrix(config.data.smoothing_prior, train.classes, votes, literal=literal)
        prior = tuple(map(tuple, rows.tolist()))
    return Task(
        method=method,
        model=model,
        loss_weights=dict(method.weights) | config.loss.weights.to_dict(),
        loss_options=config.loss.options.to_dict(),
        augmentation=augmentation,
        preprocessing=preprocessing,
        label_smoothing=config.data.label_smoothing,
        smoothing_prior=prior,
        draw_target=config.data.target == "probability",
        class_weights=class_weights,
        flip_evaluation=config.evaluation.flip,
        corner_evaluation=config.evaluation.views == "corners",
        seed=config.seed,
        examples=0 if config.data.balanced_sampling else len(train),
        profiles=tuple(method.profiles),
        point_mirror=MIRROR.get(config.data.points, ()),
    )


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second start reaches its first step in seconds."""
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path(
        os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "fer_jax", "compiled"
    )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _training_and_validation(config: Config) -> tuple[Source, Source]:
    data = config.data
    on_main(lambda: prepared_builder(data))  # one process prepares, the others wait
    # A misspelt test split must not come to light when training is over.
    check_split(prepared_builder(data), data.dataset, split_to_test(config))
    for name in ("test_split", "validation_split"):
        if data[name] == data.train_split and not config.fold:
            raise UserError(f"config.data.{name}='{data[name]}' is what the model is trained on: name another split")
    number = fold_number(config)
    train = load(data, data.train_split, training=True)
    _check_kind(config, train)
    if number:
        train, _ = take_fold(train, number)
    if config.selection.rule == "best_on_test":
        return train, part_to_test(config, load(data, split_to_test(config), training=False))
    if data.validation_split:
        if data.validation_split == data.test_split:
            raise UserError(
                f"config.data.validation_split='{data.validation_split}' is the test split: selecting on it would "
                "flatter the test score; if that is what you want, say config.selection.rule=best_on_test"
            )
        return train, load(data, data.validation_split, training=False)
    # The held-out part does not depend on the seed of training: all seeds are selected on the same examples.
    train, held = split_off(train, data.holdout_fraction, seed=0)
    if data.target in ("label", "majority"):
        return train, held
    # Scored as the test split is, whatever rule trains.
    judged = load(data, data.train_split, training=False)
    return train, judged.select(np.flatnonzero(np.isin(judged.rows, held.rows)))


def _check_kind(config: Config, train: Source) -> None:
    """Refuses clips for a method that takes images, and images for one that takes clips."""
    wanted = "clips" if methods.load(config.method).takes == "frames" else "images"
    if wanted == train.unit:
        _check_no_clips(config, train)
        return
    here = f"method '{config.method}' takes {wanted}, and {train.name} gives {train.unit}"
    if wanted == "images":
        raise UserError(f"{here}: set config.data.last_frames=3 to take the last faces of each clip as images")
    if config.data.last_frames:
        raise UserError(f"{here}: set config.data.last_frames=0 to take whole clips")
    raise UserError(f"{here}: set config.data.dataset to one of clips, such as synthetic_faces/clips")


def _check_no_clips(config: Config, train: Source) -> None:
    """Refuses for clips what is there for images only."""
    asked = {
        "augmentation.train": "flip:alternate" if pipeline(config)[0].alternates else "",
        "data.points": config.data.points,
        "data.occluded_copies": config.data.occluded_copies,
        "evaluation.occluded": config.evaluation.occluded,
        "evaluation.degraded": config.evaluation.degraded,
    }
    for field, value in asked.items():
        if value and train.frames:
            raise UserError(f"config.{field}={value!r} is for images, and {train.name} gives clips: leave it out")


def _evenly(eval_steps: int) -> int:
    """Steps per dispatch, so that few are left over, to be made one by one, before an evaluation."""
    return max(1, eval_steps // -(-eval_steps // STEPS_PER_DISPATCH))


def _resident(path: str, train: Source, mesh: Mesh) -> bool:
    """Whether the training data go to the device; says why not, unless that is what was asked for."""
    if train.on_disk:
        if path != "disk":
            _say(f"config.data.path={path}: {train.name} stays on disk, {train.nbytes / 2**30:.1f} GiB of pixels")
        return False
    limit = memory_limit(mesh)
    room = RESIDENT_ON_CPU if limit is None else int(limit * RESIDENT_SHARE)
    if path != "stream" and train.nbytes > room:
        _say(
            f"config.data.path={path}: {train.nbytes / 2**30:.1f} GiB of training data do not fit the "
            f"{room / 2**30:.1f} GiB of device memory set aside for data; streaming instead"
        )
    return path != "stream" and train.nbytes <= room


def _digest(source: Source) -> dict[str, Any]:
    """What two hosts must have in common of a split."""
    order = hashlib.sha256(np.ascontiguousarray(source.rows.astype(np.int64)).tobytes())
    labels = hashlib.sha256(np.ascontiguousarray(source.arrays["label"].astype(np.int64)).tobytes())
    return {
        "data set": f"{source.name} {source.split}",
        "examples": len(source),
        "classes": list(source.classes),
        "picture": list(source.picture_shape),
        "labels": labels.hexdigest()[:12],
        "order": order.hexdigest()[:12],
    }


def _say(text: str) -> None:
    if is_main():
        print(text, flush=True)
