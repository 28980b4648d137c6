"""The fields that every experiment has, each stated once: its default, choices, range and one line of help.

The fields of a method (its model, loss terms, loss options) come from the method: `fer_jax.config.fields.fields_of`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from fer_jax.errors import UserError, nearest

LAST_SEED = 2**31 - 1
LAST_STEP = 1 << 30  # steps are counted in int32
KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: "a tuple", dict: "fields"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
        default: its value unless an experiment sets it; every other value has the same type.
        help: one line on what it does.
        choices: the values it may have; () for any.
        range: of a number, as an interval: '[0, 1)' includes 0 and excludes 1; '' for any finite number.
        members: the type of each member of a tuple that is empty by default, if they all have the same.
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
    """Whether a value may stand in a field of a kind: JSON has no tuples, and 1.0 may be 1."""
    if kind is dict:
        return hasattr(value, "items")
    wider: Any = {float: (int, float), tuple: (list, tuple)}.get(kind, kind)
    return isinstance(value, wider) and (kind is bool or not isinstance(value, bool))


GROUPS = {
    "": "the run",
    "data": "the data set and what becomes of its images and labels",
    "augmentation": "random changes of training images",
    "preprocessing": "what every image goes through",
    "model": "the method's network",
    "loss.weights": "weights of the method's loss terms",
    "loss.options": "options of the method's loss",
    "train": "the length, shape and place of training",
    "optimizer": "the update rule",
    "schedule": "the learning rate over the run",
    "selection": "the choice of the final model",
    "evaluation": "the test, and what is written about it",
}

FIELDS = {
    "experiment": Field("", "name of the experiment"),
    "variant": Field("", "name of its variant"),
    "method": Field("", "the method, a file of fer_jax/methods"),
    "objective": Field("", "strategies over the method, such as 'small_loss+cutmix' (fer_jax/methods/objective.py)"),
    "seed": Field(0, "seed of initialization, data order and augmentation", range=f"[0, {LAST_SEED}]"),
    "seeds": Field(1, "number of runs, with seed, seed + 1, ...", range="[1, 1000]"),
    "fold": Field("", "with data.folds: the number of the fold to test, from 1, or 'all' for each in turn"),
    "init_from": Field("", "weights to start from: a work directory, .safetensors or .pth; several with commas"),
    "init_ignore": Field((), "regular expressions of parameters that keep their initialization", members=str),
    "data.dataset": Field("", "a prepared data set, such as 'fer2013' or 'synthetic_faces/basic'"),
    "data.builder": Field({}, "options of the data set's builder (synthetic faces)"),
    "data.data_dir": Field("", "folder of prepared data sets; '' is TFDS's own"),
    "data.manual_dir": Field("", "folder of the original files, to prepare a data set when it is first used"),
    "data.train_split": Field("train", "the split to train on"),
    "data.validation_split": Field("", "the split that selects the model; '' holds out a part of train_split"),
    "data.holdout_fraction": Field(
        0.1, "the share of train_split that is held out; may be 0 if the last step is taken", range="[0, 0.9]"
    ),
    "data.test_split": Field("test", "the split to test on"),
    "data.folds": Field("", "cross-validation of train_split: 'subject:10', 'leave_one_subject_out' or 'stored'"),
    "data.exclude": Field((), "flags of examples to leave out of training, such as ('black', 'leaked')", members=str),
    "data.drop_classes": Field((), "classes to leave out of every split, such as ('contempt',)", members=str),
    "data.examples": Field(
        0, "number of training examples, the same share of every class; 0 for all", range=f"[0, {LAST_STEP}]"
    ),
    "data.examples_seed": Field(0, "which ones, independent of config.seed", range=f"[0, {LAST_SEED}]"),
    "data.target": Field("label", "'label', or a rule that turns votes into targets (fer_jax/data/targets/votes.py)"),
    "data.votes": Field("votes", "which votes, if the data set has several"),
    "data.image_size": Field(48, "side of the network's input, pixels", range="[8, 2048]"),
    "data.resolutions": Field((), "smaller images first: ((share of the run, pixels), ...)"),
    "data.path": Field(
        "auto", "pixels in device memory if they fit, in host memory, or read from disk", ("auto", "stream", "disk")
    ),
    "data.balanced_sampling": Field(False, "draw every class equally often"),
    "data.class_weights": Field(False, "weigh each example by N / (C n), n the size of its class"),
    "data.class_weight_power": Field(1.0, "exponent of these weights", range="[0, 4]"),
    "data.label_smoothing": Field(0.0, "the share of a target that is spread over the classes", range="[0, 1]"),
    "data.smoothing_prior": Field("uniform", "the distribution it is spread by", ("uniform", "ferplus")),
    "data.clip_frames": Field(3, "training frames per clip", range="[1, 1024]"),
    "data.clip_sampling": Field(
        "segments",
        "one frame per segment, or the triples of the authors of frame attention",
        ("segments", "official", "official_ckplus"),
    ),
    "data.last_frames": Field(
        0, "turn clips into images: the last faces of each (of MMI the middle ones), this many", range="[0, 1024]"
    ),
    "data.neutral_frames": Field(0, "and this many of the first, labeled neutral", range="[0, 1024]"),
    "data.points": Field("", "points of the face that the method looks at", ("", "face24", "face68")),
    "data.occluded_copies": Field(False, "train on each image twice: as it is, and behind an object"),
    "data.occlusion_masks": Field(False, "with occluded_copies: tell the model which pixels are behind the object"),
    "data.label_noise": Field(
        "",
        "corrupt the training labels; 'fer2013' takes those of FER-2013 for pictures of FER+",
        ("", "symmetric", "asymmetric", "pair", "matrix", "fer2013"),
    ),
    "data.label_noise_rate": Field(0.0, "probability that a label is corrupted", range="[0, 1]"),
    "data.label_noise_seed": Field(0, "seed of the corruption, independent of config.seed", range=f"[0, {LAST_SEED}]"),
    "data.label_noise_file": Field("", "a published list of noisy labels; with 'matrix': 'fer2013', or a file"),
    "augmentation.train": Field((), "operations in their order, such as ('crop:59', 'flip', 'erase:0.5')", members=str),
    "augmentation.pad": Field("zero", "what fills the outside of a picture", ("zero", "edge", "reflect")),
    "augmentation.per_frame": Field(False, "draw for every frame of a clip instead of once per clip"),
    "preprocessing.crop": Field(
        0, "side of the middle window to see, pixels as stored; 0: as 'crop' in augmentation.train", range="[0, 4096]"
    ),
    "preprocessing.mean": Field((0.5, 0.5, 0.5), "per channel, of pixels in 0 .. 1"),
    "preprocessing.std": Field((0.5, 0.5, 0.5), "per channel, of pixels in 0 .. 1"),
    "preprocessing.standardize": Field(False, "mean 0 and variance 1 for each image, instead of mean and std"),
    "train.batch_size": Field(128, "examples per step, over all devices", range="[1, 1048576]"),
    "train.epochs": Field(10.0, "passes over the training examples", range="(0, inf)"),
    "train.max_steps": Field(0, "stop after this many steps; 0 for no such limit", range=f"[0, {LAST_STEP}]"),
    "train.phases": Field((), "new optimizer in each phase: ((share of the run, {'optimizer.name': 'sgd'}), ...)"),
    "train.phase_restores_best": Field(False, "end a phase with its best parameters on the validation split"),
    "train.eval_every_epochs": Field(1.0, "epochs between evaluations on the validation split", range="(0, inf)"),
    "train.log_every_steps": Field(20, "steps between lines of metrics.jsonl", range=f"[1, {LAST_STEP}]"),
    "train.accumulate": Field(1, "micro-batches per step", range="[1, 1024]"),
    "train.ema_decay": Field(0.0, "moving average of the parameters, used in evaluation; 0 for none", range="[0, 1)"),
    "train.dtype": Field("auto", "of the network; auto is bfloat16 on accelerators", ("auto", "float32", "bfloat16")),
    "train.platform": Field("auto", "stop unless devices are of this kind", ("auto", "cpu", "gpu", "tpu")),
    "train.devices": Field(0, "number of devices; 0 for all", range="[0, 1048576]"),
    "train.steps_per_dispatch": Field(0, "steps per call of the device; 0 decides by the device", range="[0, 10000]"),
    "train.keep_checkpoints": Field(2, "number of checkpoints to keep", range="[1, 1000]"),
    "optimizer.name": Field("adam", "the rule", ("adam", "adamw", "sgd", "muon")),
    "optimizer.learning_rate": Field(1e-3, "the peak of the schedule", range="[0, inf)"),
    "optimizer.b1": Field(0.9, "Adam's decay of the first moment", range="[0, 1)"),
    "optimizer.b2": Field(0.999, "Adam's decay of the second moment", range="[0, 1)"),
    "optimizer.eps": Field(1e-8, "Adam's epsilon", range="[0, inf)"),
    "optimizer.momentum": Field(0.9, "of sgd and muon", range="[0, 1)"),
    "optimizer.nesterov": Field(False, "Nesterov's momentum"),
    "optimizer.weight_decay": Field(0.0, "weight decay", range="[0, inf)"),
    "optimizer.decoupled": Field(True, "False adds L2 to the gradient, as PyTorch's Adam and SGD do"),
    "optimizer.decay_1d": Field(True, "False leaves biases and norms without weight decay"),
    "optimizer.clip_norm": Field(0.0, "largest norm of the gradient; 0 for no limit", range="[0, inf)"),
    "optimizer.adam_share": Field(0.15, "with muon: Adam's share of the learning rate", range="[0, inf)"),
    "optimizer.groups": Field((), "((regular expression, {'lr_multiplier': 0.1, 'frozen': False}), ...)"),
    "schedule.name": Field(
        "constant",
        "its shape",
        ("constant", "linear", "step", "exponential", "cosine", "one_cycle", "triangular"),
    ),
    "schedule.warmup_epochs": Field(0.0, "linear warmup", range="[0, inf)"),
    "schedule.boundaries_epochs": Field((), "step: epochs at which the rate is multiplied by factor", members=float),
    "schedule.factor": Field(0.1, "step: at each boundary; exponential: per epoch", range="[0, inf)"),
    "schedule.final_fraction": Field(0.0, "the last rate as a share of the peak", range="[0, 1]"),
    "schedule.peak_fraction": Field(0.3, "one_cycle, triangular: the share of the run before the peak", range="[0, 1]"),
    "schedule.div_factor": Field(25.0, "one_cycle, triangular: the peak over the first rate", range="(0, inf)"),
    "schedule.final_div_factor": Field(1e4, "one_cycle: the first rate over the last", range="(0, inf)"),
    "schedule.momentum": Field(
        (), "one_cycle: (high, low) momentum, opposite to the rate; () keeps the optimizer's", members=float
    ),
    "selection.rule": Field("best_validation", "which parameters to keep", ("best_validation", "last", "best_on_test")),
    "selection.metric": Field("", "the score that best refers to; by default the first that the method has"),
    "evaluation.batch_size": Field(256, "examples per step", range="[1, 1048576]"),
    "evaluation.flip": Field(False, "average the prediction with that of the mirrored image"),
    "evaluation.views": Field("", "'corners': 0.4 of the plain prediction, 0.6 of four corners' mean", ("", "corners")),
    "evaluation.occluded": Field(False, "score the test split behind objects as well"),
    "evaluation.degraded": Field((), "and degraded, such as ('low_resolution:24', 'gaussian_blur:3')", members=str),
    "evaluation.bootstrap": Field(1000, "resamples for intervals; 0 for none", range="[0, 1000000]"),
    "evaluation.report": Field(True, "write the report page"),
}
