"""The config fields that every experiment has, each defined once: default, choices, range and one line of help.

A method defines its own fields (model, loss terms, loss options); `fer_jax.config.fields.fields_of` collects them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from fer_jax.errors import UserError, nearest

LAST_SEED = 2**31 - 1
LAST_STEP = 1 << 30  # steps are counted in int32
KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: "a tuple", dict: "a dict"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
        default: the value if no experiment sets it; any other value must have the same type.
        help: one line on what the field does.
        choices: the allowed values; () for any.
        range: the allowed interval of a number: '[0, 1)' includes 0 and excludes 1; '' for any finite number.
        members: the element type of a tuple that is empty by default, if all elements have the same type.
    """

    default: Any
    help: str
    choices: tuple[str, ...] = ()
    range: str = ""
    members: type | None = None

    def check(self, path: str, value: Any) -> None:
        """Raises UserError unless `value` has the field's type and lies in its range or among its choices."""
        if not _is(value, type(self.default)):
            raise UserError(f"config.{path}={value!r}: give {KINDS[type(self.default)]}")
        kind: Any = type(self.default[0]) if isinstance(self.default, tuple) and self.default else self.members
        for member in value if kind else ():
            if not _is(member, kind):
                raise UserError(f"config.{path}={value!r}: {member!r} is not {KINDS[kind]}")
        if self.choices and value not in self.choices:
            none = " ('' for none)" if "" in self.choices else ""
            raise UserError(f"config.{path}={value!r}: {nearest(value, self.choices)}{none}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{path}={value}: give a finite number in {self.range or '(-inf, inf)'}")
        if self.range and not self._contains(value):
            raise UserError(f"config.{path}={value} is out of range: give {KINDS[type(self.default)]} in {self.range}")

    def _contains(self, value: float) -> bool:
        low, high = map(float, self.range[1:-1].split(","))
        above = value >= low if self.range[0] == "[" else value > low
        return above and (value <= high if self.range[-1] == "]" else value < high)


def _is(value: Any, kind: type) -> bool:
    """Whether a field of type `kind` accepts `value`: JSON has no tuples, and an int may stand for a float."""
    if kind is dict:
        return hasattr(value, "items")
    wider: Any = {float: (int, float), tuple: (list, tuple)}.get(kind, kind)
    return isinstance(value, wider) and (kind is bool or not isinstance(value, bool))


GROUPS = {
    "": "the run",
    "data": "the data set, its splits, images and labels",
    "augmentation": "random changes of training images",
    "preprocessing": "crop and normalization of every image, in training and evaluation",
    "model": "the method's network",
    "loss.weights": "weights of the method's loss terms",
    "loss.options": "options of the method's loss",
    "train": "length, batch size, intervals and devices of training",
    "optimizer": "the update rule",
    "schedule": "the learning rate over the run",
    "selection": "the choice of the final model",
    "evaluation": "scoring of the test split, and the report",
}

FIELDS = {
    "experiment": Field("", "name of the experiment"),
    "variant": Field("", "name of the experiment's variant"),
    "method": Field("", "name of the method: a file in fer_jax/methods"),
    "objective": Field("", "strategies to add to the method, e.g. 'small_loss+cutmix' (fer_jax/methods/objective.py)"),
    "seed": Field(0, "seed of initialization, data order and augmentation", range=f"[0, {LAST_SEED}]"),
    "seeds": Field(1, "number of runs, with seed, seed + 1, ...", range="[1, 1000]"),
    "fold": Field("", "with data.folds: the number of the fold to test, from 1, or 'all' for each in turn"),
    "init_from": Field("", "initial weights: work directory, .safetensors or .pth; separate several with commas"),
    "init_ignore": Field((), "regular expressions of names, in model and weight file, not to load", members=str),
    "data.dataset": Field("", "a prepared data set, such as 'fer2013' or 'synthetic_faces/basic'"),
    "data.builder": Field({}, "options of the data set's builder (synthetic faces)"),
    "data.data_dir": Field("", "folder of prepared data sets; '' for TFDS's default"),
    "data.manual_dir": Field("", "folder of the original files, from which a data set is prepared on first use"),
    "data.train_split": Field("train", "the split to train on"),
    "data.validation_split": Field("", "the split used to select the model; '' holds out part of train_split"),
    "data.holdout_fraction": Field(
        0.1, "fraction of train_split to hold out; may be 0 with selection.rule='last'", range="[0, 0.9]"
    ),
    "data.test_split": Field("test", "the split to test on"),
    "data.folds": Field("", "cross-validation of train_split: 'subject:10', 'leave_one_subject_out' or 'stored'"),
    "data.exclude": Field((), "flags of training examples to leave out, such as ('black', 'leaked')", members=str),
    "data.drop_classes": Field((), "classes to leave out of every split, such as ('contempt',)", members=str),
    "data.examples": Field(
        0, "number of training examples, the same fraction of each class; 0 for all", range=f"[0, {LAST_STEP}]"
    ),
    "data.examples_seed": Field(0, "seed that draws them, independent of config.seed", range=f"[0, {LAST_SEED}]"),
    "data.target": Field("label", "'label', or a rule that turns votes into targets (fer_jax/data/targets/votes.py)"),
    "data.votes": Field("votes", "name of the votes field to use, if the data set has several"),
    "data.image_size": Field(48, "side of the network's square input in pixels", range="[8, 2048]"),
    "data.resolutions": Field((), "start with smaller images: ((share of the run, pixels), ...)"),
    "data.path": Field(
        "auto", "where pixels are kept: device memory if they fit, host memory or disk", ("auto", "stream", "disk")
    ),
    "data.balanced_sampling": Field(False, "sample every class equally often"),
    "data.class_weights": Field(False, "weight each example by N / (C n), where n is the size of its class"),
    "data.class_weight_power": Field(1.0, "exponent applied to the class weights", range="[0, 4]"),
    "data.label_smoothing": Field(0.0, "fraction of each target to spread over all classes", range="[0, 1]"),
    "data.smoothing_prior": Field("uniform", "distribution that label smoothing spreads by", ("uniform", "ferplus")),
    "data.clip_frames": Field(3, "training frames per clip", range="[1, 1024]"),
    "data.clip_sampling": Field(
        "segments",
        "one frame per segment, or the triples of the authors of frame attention",
        ("segments", "official", "official_ckplus"),
    ),
    "data.last_frames": Field(
        0, "turn clips into images: take this many faces at the apex of each (its end or middle)", range="[0, 1024]"
    ),
    "data.neutral_frames": Field(0, "with last_frames: add this many first faces, labeled neutral", range="[0, 1024]"),
    "data.points": Field("", "facial landmarks to give to the method", ("", "face24", "face68")),
    "data.occluded_copies": Field(False, "train on each image twice: unchanged, and partly covered by an object"),
    "data.occlusion_masks": Field(False, "with occluded_copies: also give the model the mask of covered pixels"),
    "data.label_noise": Field(
        "",
        "corrupt the training labels; 'fer2013' gives FER+ images their FER-2013 labels",
        ("", "symmetric", "asymmetric", "pair", "matrix", "fer2013"),
    ),
    "data.label_noise_rate": Field(0.0, "probability that a label is corrupted", range="[0, 1]"),
    "data.label_noise_seed": Field(0, "seed of the corruption, independent of config.seed", range=f"[0, {LAST_SEED}]"),
    "data.label_noise_file": Field("", "a published list of noisy labels; with 'matrix': 'fer2013', or a file"),
    "augmentation.train": Field((), "operations in order, such as ('crop:59', 'flip', 'erase:0.5')", members=str),
    "augmentation.pad": Field("zero", "how to fill pixels outside the image", ("zero", "edge", "reflect")),
    "augmentation.per_frame": Field(False, "augment each frame of a clip independently instead of all alike"),
    "preprocessing.crop": Field(
        0, "side of the center crop in stored pixels; 0: that of 'crop' in augmentation.train", range="[0, 4096]"
    ),
    "preprocessing.mean": Field((0.5, 0.5, 0.5), "mean per channel, for pixels scaled to [0, 1]"),
    "preprocessing.std": Field((0.5, 0.5, 0.5), "standard deviation per channel, for pixels scaled to [0, 1]"),
    "preprocessing.standardize": Field(False, "normalize each image to mean 0 and variance 1 instead"),
    "train.batch_size": Field(128, "examples per step, over all devices", range="[1, 1048576]"),
    "train.epochs": Field(10.0, "passes over the training examples", range="(0, inf)"),
    "train.max_steps": Field(0, "stop after this many steps; 0 for no such limit", range=f"[0, {LAST_STEP}]"),
    "train.phases": Field((), "phases with a new optimizer each: ((share of the run, {'optimizer.name': 'sgd'}), ...)"),
    "train.phase_restores_best": Field(False, "at the end of a phase, restore the best parameters so far"),
    "train.eval_every_epochs": Field(1.0, "epochs between evaluations on the validation split", range="(0, inf)"),
    "train.log_every_steps": Field(20, "steps between lines of metrics.jsonl", range=f"[1, {LAST_STEP}]"),
    "train.accumulate": Field(1, "gradient accumulation: micro-batches per step", range="[1, 1024]"),
    "train.ema_decay": Field(0.0, "decay of the parameters' moving average for evaluation; 0 for none", range="[0, 1)"),
    "train.dtype": Field("auto", "compute dtype; auto: bfloat16 on accelerators", ("auto", "float32", "bfloat16")),
    "train.platform": Field("auto", "required platform; others are refused", ("auto", "cpu", "gpu", "tpu")),
    "train.devices": Field(0, "number of devices; 0 for all", range="[0, 1048576]"),
    "train.steps_per_dispatch": Field(0, "steps per device call; 0: chosen for the platform", range="[0, 10000]"),
    "train.keep_checkpoints": Field(2, "number of checkpoints to keep", range="[1, 1000]"),
    "optimizer.name": Field("adam", "the update rule", ("adam", "adamw", "sgd", "muon")),
    "optimizer.learning_rate": Field(1e-3, "peak learning rate of the schedule", range="[0, inf)"),
    "optimizer.b1": Field(0.9, "Adam's decay of the first moment", range="[0, 1)"),
    "optimizer.b2": Field(0.999, "Adam's decay of the second moment", range="[0, 1)"),
    "optimizer.eps": Field(1e-8, "Adam's epsilon", range="[0, inf)"),
    "optimizer.momentum": Field(0.9, "momentum of sgd and muon", range="[0, 1)"),
    "optimizer.nesterov": Field(False, "use Nesterov momentum"),
    "optimizer.weight_decay": Field(0.0, "weight decay coefficient", range="[0, inf)"),
    "optimizer.decoupled": Field(True, "False adds weight decay to the gradient (L2), as PyTorch's Adam and SGD do"),
    "optimizer.decay_1d": Field(True, "False exempts biases and normalization parameters from weight decay"),
    "optimizer.clip_norm": Field(0.0, "clip gradients to this global norm; 0 for no clipping", range="[0, inf)"),
    "optimizer.adam_share": Field(0.15, "with muon: Adam's learning rate over learning_rate", range="[0, inf)"),
    "optimizer.groups": Field((), "by parameter: ((regular expression, {'lr_multiplier': 0.1, 'frozen': False}), ...)"),
    "schedule.name": Field(
        "constant",
        "shape of the learning-rate schedule",
        ("constant", "linear", "step", "exponential", "cosine", "one_cycle", "triangular"),
    ),
    "schedule.warmup_epochs": Field(0.0, "epochs of linear warmup", range="[0, inf)"),
    "schedule.boundaries_epochs": Field((), "step: epochs at which the rate is multiplied by factor", members=float),
    "schedule.factor": Field(0.1, "factor at each boundary (step) or per epoch (exponential)", range="[0, inf)"),
    "schedule.final_fraction": Field(0.0, "final rate as a fraction of the peak", range="[0, 1]"),
    "schedule.peak_fraction": Field(0.3, "one_cycle, triangular: fraction of the run before the peak", range="[0, 1]"),
    "schedule.div_factor": Field(25.0, "one_cycle, triangular: peak rate over initial rate", range="(0, inf)"),
    "schedule.final_div_factor": Field(1e4, "one_cycle: initial rate over final rate", range="(0, inf)"),
    "schedule.momentum": Field(
        (), "one_cycle: (high, low) momentum, cycled inversely to the rate; () keeps the optimizer's", members=float
    ),
    "selection.rule": Field("best_validation", "which parameters to keep", ("best_validation", "last", "best_on_test")),
    "selection.metric": Field("", "the score that selects the best model; by default the method's first"),
    "evaluation.batch_size": Field(256, "examples per batch", range="[1, 1048576]"),
    "evaluation.flip": Field(False, "average predictions over the image and its mirror image"),
    "evaluation.views": Field(
        "", "'corners': 0.4 x plain prediction + 0.6 x mean over 4 corner crops and their mirrors", ("", "corners")
    ),
    "evaluation.occluded": Field(False, "also score the test split with objects in front of the faces"),
    "evaluation.degraded": Field(
        (), "also score degraded copies of it, such as ('low_resolution:24', 'gaussian_blur:3')", members=str
    ),
    "evaluation.bootstrap": Field(1000, "bootstrap resamples for intervals; 0 for none", range="[0, 1000000]"),
    "evaluation.report": Field(True, "write the report page"),
}
