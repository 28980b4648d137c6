"""Checks that config fields fit together; `table.FIELDS` and the method say which values a single field may have."""

from __future__ import annotations

from fer_jax import methods
from fer_jax.config.fields import Config, check_expression, check_fields, fields_of, leaves
from fer_jax.config.protocol import NOTHING, check_protocol, selected_on
from fer_jax.config.steps import phases, stages
from fer_jax.config.table import LAST_SEED
from fer_jax.data.augment.augmentation import pipeline
from fer_jax.data.corrupt import degradation
from fer_jax.data.targets import label_noise
from fer_jax.errors import UserError
from fer_jax.methods import objective

NOT_FITTED = (  # fields, or prefixes of fields
    "objective",
    "init_",
    "data.balanced_sampling",
    "data.class_weights",
    "data.label_smoothing",
    "data.resolutions",
    "augmentation.",
    "loss.",
    "optimizer.",
    "schedule.",
    "train.ema_decay",
)
MANY_STEPS = 1 << 20  # enough for any phases: the number of steps is known only with the data


def check_config(config: Config) -> None:
    """Raises UserError for a field that nothing reads, a value out of range, and values that contradict each other."""
    check_fields(config)
    method = methods.load(config.method)
    stages(config, MANY_STEPS)
    phases(config, MANY_STEPS)
    check_protocol(config)
    _check_data(config)
    _check_train(config)
    _check_target(config)
    label_noise.check(config.data, reads_labels=not method.measures)
    for text in config.evaluation.degraded:
        degradation.parse(text)
    if config.evaluation.views and config.evaluation.flip:
        raise UserError("config.evaluation.views='corners' includes mirrored views: set config.evaluation.flip=False")
    for field in ("flip", "views", "occluded", "degraded"):
        if config.evaluation[field] and method.measures:
            raise UserError(f"config.evaluation.{field}: {config.method} predicts no classes; leave it out")
    if method.fit:
        _check_fitted(config)
    method.check(config)
    objective.check(method, config)


def _check_data(config: Config) -> None:
    data = config.data
    augmentation, _ = pipeline(config)
    if data.balanced_sampling and augmentation.alternates:
        raise UserError(
            "config.augmentation.train: 'flip:alternate' mirrors images every other epoch, but with "
            "config.data.balanced_sampling there are no epochs: give 'flip' instead"
        )
    if data.points and augmentation.policy:
        raise UserError(
            f"config.augmentation.train: '{augmentation.policy}' moves pixels but not landmarks, which this run uses "
            f"(config.data.points='{data.points}'): leave it out"
        )
    if data.smoothing_prior != "uniform" and not data.label_smoothing:
        raise UserError(
            f"config.data.smoothing_prior='{data.smoothing_prior}' does nothing without config.data.label_smoothing: "
            "give 0.2, for example"
        )
    if data.neutral_frames and not data.last_frames:
        raise UserError(
            f"config.data.neutral_frames={data.neutral_frames} applies only to clips that are turned into images: "
            "also set config.data.last_frames=3, or give 0"
        )


def _check_train(config: Config) -> None:
    if config.seed + config.seeds - 1 > LAST_SEED:
        raise UserError(
            f"config.seeds={config.seeds}: with config.seed={config.seed} the last seed exceeds {LAST_SEED}; "
            "give a smaller config.seed"
        )
    if config.train.phase_restores_best and selected_on(config) == NOTHING:
        raise UserError(
            "config.train.phase_restores_best=True needs held-out examples to find the best parameters: set "
            "config.data.holdout_fraction=0.1"
        )
    for expression in config.init_ignore:
        check_expression(expression, "config.init_ignore")


def _check_fitted(config: Config) -> None:
    """Raises UserError for a field that changes only the steps of training, for a method that takes none."""
    fields = fields_of(config.method)
    for field, value in leaves(config, fields):
        if field.startswith(NOT_FITTED) and value != fields[field].default:
            raise UserError(
                f"config.{field}={value!r} has no effect: {config.method} is fitted at once, without training steps, "
                "to the examples as they are stored; leave it out"
            )


def _check_target(config: Config) -> None:
    """Raises UserError if the target rule does not match the classification loss (FER+: each rule has its loss)."""
    classification = config.loss.options.get("classification", "cross_entropy")
    if config.data.target == "multi_target" and "classification" not in config.loss.options:
        raise UserError(f"config.data.target='multi_target': {config.method} has no loss for it; give 'cross_entropy'")
    if (config.data.target == "multi_target") != (classification == "multi_target"):
        raise UserError(
            f"config.loss.options.classification='{classification}' does not fit config.data.target="
            f"'{config.data.target}': set both to 'multi_target', or neither"
        )
    if classification == "multi_target" and config.data.label_smoothing:
        raise UserError("config.data.label_smoothing has no effect with config.data.target='multi_target': give 0")
