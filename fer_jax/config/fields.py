"""The fields that every experiment has, and the check that no field is misspelt or left unread."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from fer_jax import methods
from fer_jax.config.phases import phases
from fer_jax.config.protocol import check_protocol
from fer_jax.config.ranges import LAST_SEED, check_finite, check_numbers
from fer_jax.config.resolutions import stages
from fer_jax.data.augment.augmentation import Augmentation
from fer_jax.data.corrupt import degradation
from fer_jax.data.sources.clips import SAMPLINGS
from fer_jax.data.sources.points import KINDS as POINT_KINDS
from fer_jax.data.targets import label_noise
from fer_jax.data.targets.prior import PRIORS
from fer_jax.errors import UserError, nearest
from fer_jax.methods.method import Method

FREE_FORM = ("model", "loss.weights", "loss.options", "data.builder")
# Fields of a Model that the harness sets.
NOT_IN_CONFIG = frozenset({"parent", "name", "num_classes", "dtype"})
Config = Any  # an ml_collections.ConfigDict, whose fields have no static types
PLAIN = (bool, int, float, str, tuple)


def default_config(experiment: str, variant: str, method: str) -> Config:
    """Returns every field of the harness and of a method at its default; an experiment assigns what its paper says.

    Args:
        experiment, variant: name the run.
        method: the file in fer_jax/methods; the fields of its Model, its loss terms and their options come along.
    """
    config: Config = ml_collections.ConfigDict()
    config.experiment = experiment
    config.variant = variant
    config.method = method
    config.seed = 0
    config.seeds = 1  # so many runs, with seed, seed + 1, ... (fer_jax/sweeps/sweep_seeds.py)
    config.fold = ""  # with data.folds: which of them is tested, from 1, or all for every one in turn
    config.init_from = ""  # weights to start from: a work directory, .safetensors, .pth; several with commas between
    config.init_ignore = ()  # expressions: parameters that stay at init, and weights that are left out, whatever fits

    contract = methods.load(method)
    config.model = ml_collections.ConfigDict(_model_fields(contract))
    config.loss = ml_collections.ConfigDict()
    config.loss.weights = ml_collections.ConfigDict(dict(contract.weights))
    config.loss.options = ml_collections.ConfigDict(_loss_options(contract))

    config.data = data = ml_collections.ConfigDict()
    data.dataset = ""  # a builder, e.g. 'fer2013' or 'synthetic_faces/basic'
    data.builder = ml_collections.ConfigDict()  # keyword arguments of the builder's config (synthetic faces)
    data.data_dir = ""  # where prepared data sets live; '' is TFDS's own default
    data.manual_dir = ""  # the original files; needed only to prepare a data set on the fly
    data.train_split = "train"
    data.validation_split = ""  # '' holds out a part of the training split
    data.holdout_fraction = 0.1
    data.test_split = "test"  # or 'validation', where no other labels are public; the results then say so
    data.folds = ""  # of train_split: 'subject:10', 'leave_one_subject_out' or 'stored' (fer_jax/data/sources/folds.py)
    data.exclude = ()  # flags of the data set whose examples leave training, e.g. ('black', 'leaked')
    data.target = "label"  # or a rule over votes: see fer_jax/data/targets/votes.py
    data.votes = "votes"  # which votes, where a data set has several
    data.image_size = 48
    data.resolutions = ()  # ((share of the run, pixels), ...): smaller images first (fer_jax/config/resolutions.py)
    data.path = "auto"  # device | stream | disk: in device memory, in the host's, or decoded as they are needed
    data.balanced_sampling = False  # draw every class equally often
    data.class_weights = False  # weigh each example by the inverse frequency of its class, N / (C n_y),
    data.class_weight_power = 1.0  # raised to this power
    data.label_smoothing = 0.0  # epsilon: so much of a target is spread out
    data.smoothing_prior = "uniform"  # over what: ferplus | votes, what a class is taken for (data/targets/prior.py)
    data.smoothing_literal = (
        False  # leave rows of the prior unnormalised where classes are missing, as the source's code does
    )
    data.clip_frames = 3  # frames that stand for a clip in training
    data.clip_sampling = "segments"  # or the authors' triples: 'official', 'official_ckplus' (data/sources/clips.py)
    data.last_frames = 0  # above 0: clips become images, the last so many faces of each
    data.neutral_frames = 0  # and so many of the first ones, as neutral (fer_jax/data/targets/labelled.py)
    data.points = ""  # points of the face that a method looks at: 'face24' (fer_jax/data/sources/points.py)
    data.points_cheek = 16.0  # points 23 and 24 above the mouth's corners: 16 in the authors' script, 10 in their lists
    data.occluded_copies = False  # train on each image twice, as it is and behind an object (fer_jax/data/occlusion)
    data.label_noise = ""  # symmetric | asymmetric | pair: wrong training labels (fer_jax/data/targets/label_noise.py),
    data.label_noise_rate = 0.0  # each with this probability,
    data.label_noise_seed = 0  # drawn from this seed, whatever that of training;
    data.label_noise_file = ""  # or a published list of noisy labels instead

    config.augmentation = ml_collections.ConfigDict(
        {field.name: _plain(field) for field in dataclasses.fields(Augmentation)}
    )

    config.train = train = ml_collections.ConfigDict()
    train.batch_size = 128
    train.epochs = 10.0
    train.max_steps = 0  # stops earlier when above 0
    train.phases = ()  # ((share of the run, {'optimizer.name': 'sgd'}), ...): optimiser and schedule start anew in each
    train.phase_restores_best = False  # a phase ends with the parameters of the best validation so far
    train.eval_every_epochs = 1.0
    train.log_every_steps = 20
    train.accumulate = 1  # micro-batches per step
    train.ema_decay = 0.0  # 0: no moving average; else evaluation uses the averaged parameters
    train.dtype = "auto"  # float32 | bfloat16; auto is bfloat16 on accelerators
    train.platform = "auto"  # cpu | gpu | tpu: refuse to run elsewhere
    train.devices = 0  # how many of them; 0 is all
    train.steps_per_dispatch = 0  # 0: one on a CPU, many on an accelerator
    train.keep_checkpoints = 2

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = "adam"  # adam | adamw | sgd | muon
    optimizer.learning_rate = 1e-3
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.eps = 1e-8
    optimizer.momentum = 0.9
    optimizer.nesterov = False
    optimizer.weight_decay = 0.0
    optimizer.decoupled = True  # False: L2 added to the gradient, as PyTorch's Adam and SGD do
    optimizer.decay_1d = True  # False: biases and norms are not decayed
    optimizer.clip_norm = 0.0
    optimizer.adam_share = 0.15  # of muon's learning rate: that of Adam, for what muon does not train
    optimizer.groups = ()  # ((regex, {'lr_multiplier': .1, 'weight_decay': 0., 'frozen': False}), ...)

    config.schedule = schedule = ml_collections.ConfigDict()
    schedule.name = "constant"  # constant | linear | step | exponential | cosine | one_cycle | triangular
    schedule.warmup_epochs = 0.0
    schedule.boundaries_epochs = ()
    schedule.factor = 0.1
    schedule.final_fraction = 0.0
    schedule.peak_fraction = 0.3
    schedule.div_factor = 25.0
    schedule.final_div_factor = 1e4
    schedule.momentum = ()  # one_cycle: (high, low), momentum against the learning rate; () is the optimizer's own

    config.selection = selection = ml_collections.ConfigDict()
    selection.rule = "best_validation"  # last | best_on_test (what much of the literature reports)
    selection.metric = next(iter(score_names(contract)))

    config.evaluation = evaluation = ml_collections.ConfigDict()
    evaluation.batch_size = 256
    evaluation.flip = False  # average the prediction with that of the mirrored image
    evaluation.occluded = False  # score the test split behind objects as well
    evaluation.degraded = ()  # and degraded: ('low_resolution:24', 'gaussian_blur:3'), see data/corrupt/degradation.py
    # At the test: corners are 0.4 of the plain prediction, 0.6 of the mean over four corners, mirrored or not.
    evaluation.views = ""
    evaluation.bootstrap = 1000
    evaluation.report = True  # False: scores only, no page with pictures
    return config


MANY_STEPS = 1 << 20  # a run long enough for any phases: how many steps it has is not known before its data


def score_names(method: Method) -> tuple[str, ...]:
    """Returns what a model of this method may be selected by, the usual one first: classification scores or its own."""
    return tuple(method.measures or ("accuracy", "mean_recall", "macro_f1", "nll"))


def check_config(config: Config) -> None:
    """Refuses a field that nobody reads, a misspelt one and a value out of its range."""
    method = methods.load(config.get("method", ""))
    _check_keys(config.to_dict(), default_config("", "", config.method).to_dict(), "config")
    _check_names(config.model, _model_fields(method), "config.model", f"{config.method}.Model")
    _check_names(config.loss.weights, method.weights, "config.loss.weights", f"{config.method}.loss")
    _check_names(config.loss.options, _loss_options(method), "config.loss.options", f"{config.method}.loss")
    one_of(config.data.clip_sampling, SAMPLINGS, "config.data.clip_sampling")
    one_of(config.data.points, ("", *POINT_KINDS), "config.data.points")
    one_of(config.data.path, ("auto", "device", "stream", "disk"), "config.data.path")
    if config.data.balanced_sampling and config.augmentation.flip_alternate:
        raise UserError(
            "config.augmentation.flip_alternate mirrors in every other epoch, and with "
            "config.data.balanced_sampling there are no epochs: set one of them to False"
        )
    one_of(config.data.smoothing_prior, PRIORS, "config.data.smoothing_prior")
    if config.data.smoothing_prior != "uniform" and not config.data.label_smoothing:
        raise UserError(
            f"config.data.smoothing_prior='{config.data.smoothing_prior}' does nothing without "
            "config.data.label_smoothing: give 0.2, for example"
        )
    label_noise.check(config.data, reads_labels=not method.measures)
    degradation.check(config.evaluation.degraded)
    one_of(config.evaluation.views, ("", "corners"), "config.evaluation.views")
    if config.evaluation.views and config.evaluation.flip:
        raise UserError(
            "config.evaluation.views='corners' has mirrored views already: set config.evaluation.flip=False"
        )
    one_of(config.train.dtype, ("auto", "float32", "bfloat16"), "config.train.dtype")
    one_of(config.train.platform, ("auto", "cpu", "gpu", "tpu"), "config.train.platform")
    one_of(config.selection.rule, ("best_validation", "last", "best_on_test"), "config.selection.rule")
    one_of(config.selection.metric, score_names(method), "config.selection.metric")
    for field in ("flip", "views", "occluded", "degraded"):
        if config.evaluation[field] and method.measures:
            raise UserError(f"config.evaluation.{field}: {config.method} predicts no classes; leave it out")
    stages(config, MANY_STEPS)
    for phase in phases(config, MANY_STEPS):
        check_numbers(phase.config)
    check_protocol(config)
    if config.seed + config.seeds - 1 > LAST_SEED:
        raise UserError(f"config.seeds={config.seeds} from config.seed={config.seed} on: the last may be {LAST_SEED}")
    if config.data.neutral_frames and not config.data.last_frames:
        raise UserError(
            f"config.data.neutral_frames={config.data.neutral_frames} is for clips taken as images: set "
            "config.data.last_frames=3 as well, or give 0"
        )
    for name, default in _model_fields(method).items():
        value = config.model.get(name, default)
        counts = isinstance(default, int) and not isinstance(default, bool) and default > 0
        if counts and not (isinstance(value, int) and value > 0):
            raise UserError(f"config.model.{name}={value}: give a whole number of at least 1")
        if name.startswith("dropout") and isinstance(default, float) and not 0 <= value < 1:
            raise UserError(f"config.model.{name}={value}: give a share of at least 0 and below 1")
    for group in ("model", "loss.options", "loss.weights"):
        check_finite(config, group)
    _check_target(config, _loss_options(method))
    method.check(config)
    for expression in config.init_ignore:
        check_expression(expression, "config.init_ignore")
    if config.train.batch_size % config.train.accumulate:
        raise UserError(
            f"config.train.batch_size={config.train.batch_size} does not divide into "
            f"config.train.accumulate={config.train.accumulate} micro-batches"
        )


def _check_target(config: Config, options: Mapping[str, Any]) -> None:
    """Refuses a target rule and a classification loss that do not belong together (FER+: each rule has its loss)."""
    if "classification" not in options:
        if config.data.target == "multi_target":
            raise UserError(
                "config.data.target='multi_target' counts each of several classes as right, and "
                f"{config.method} has no loss that does: give 'cross_entropy'"
            )
        return
    classification = config.loss.options.get("classification", options["classification"])
    if (config.data.target == "multi_target") != (classification == "multi_target"):
        fitting = "multi_target" if config.data.target == "multi_target" else "cross_entropy"
        raise UserError(
            f"config.loss.options.classification='{classification}' does not fit config.data.target="
            f"'{config.data.target}': give '{fitting}'"
        )
    if classification == "multi_target" and config.data.label_smoothing:
        raise UserError("config.data.label_smoothing has no meaning with config.data.target='multi_target': give 0")


def _model_fields(method: Method) -> dict[str, Any]:
    fields = {f.name: f.default for f in dataclasses.fields(method.model) if f.name not in NOT_IN_CONFIG}
    return {name: value for name, value in fields.items() if isinstance(value, PLAIN)}


def _loss_options(method: Method) -> dict[str, Any]:
    parameters = inspect.signature(method.loss).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def one_of(value: str, known: Iterable[str], field: str) -> str:
    """Returns `value`, or refuses it with the nearest of `known`."""
    known = list(known)
    if value not in known:
        raise UserError(f"{field}='{value}': {nearest(value, known)}")
    return value


def check_expression(expression: Any, field: str) -> None:
    """Refuses what is no regular expression."""
    try:
        re.compile(expression)
    except (re.error, TypeError) as error:
        raise UserError(f"{field}: {expression!r} is no regular expression ({error})") from error


def choose_variant(variant: str, variants: Mapping[str, Callable[..., None]], experiment: str) -> Callable[..., None]:
    """Returns the function that fills in a variant of an experiment, or refuses its name."""
    if variant not in variants:
        raise UserError(f"{experiment} has no variant '{variant}'; {nearest(variant, variants)}")
    return variants[variant]


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Returns 'field: theirs -> ours' for each field in which two plain configs differ."""
    lines = []
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {b!r} -> {a!r}")
    return lines


def _check_keys(config: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> None:
    for key, value in config.items():
        here = f"{path}.{key}"
        if key not in schema:
            raise UserError(f"{here}: nothing reads this field; {nearest(key, schema)}")
        if here.removeprefix("config.") not in FREE_FORM and isinstance(schema[key], Mapping):
            if not isinstance(value, Mapping):
                raise UserError(f"{here}={value!r} must be a group of fields")
            _check_keys(value, schema[key], here)


def _check_names(given: Iterable[str], known: Iterable[str], path: str, owner: str) -> None:
    for name in given:
        if name not in set(known):
            raise UserError(f"{path}.{name}: {owner} does not read this field; {nearest(name, known)}")


def assign(config: Config, path: str, value: Any) -> None:
    """Sets the field at a dotted path."""
    *groups, name = path.split(".")
    for group in groups:
        config = config[group]
    config[name] = value


def _plain(field: dataclasses.Field[Any]) -> Any:
    # A config field keeps its type, so "nothing" is written as the empty value of that type: 0 or ().
    if field.default is None:
        return 0 if "int" in str(field.type).split("|")[0] else ()
    return field.default
