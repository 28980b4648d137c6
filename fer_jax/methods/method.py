"""The interface between a method and the harness: everything that the harness uses of a method is a field of `Method`.

Each file of this package ends with `METHOD = Method(...)`. The harness knows no method by name; it loads one with
`fer_jax.methods.load(name)` and reads these fields. A strategy (`fer_jax.methods.objective`) turns one Method into
another. Shapes: B examples in a batch, N in the training set, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

Batch = Mapping[str, Array]
Aux = Mapping[str, Any]
PerExample = Float[Array, "B"]
Rows = Int[Array, "B"]
Terms = Mapping[str, PerExample]
Memory = Any  # a tree of arrays [N, ...]
Config = Any  # an ml_collections.ConfigDict, whose fields have no static types
Scores = dict[str, float | None]


class Output(NamedTuple):
    """What the model returns for one view of a batch: logits [B, C] and its named intermediates."""

    logits: Float[Array, "B C"]
    aux: Aux


Outputs = tuple[Output, ...]  # one for each view, in the order of `Method.views`


class Clock(NamedTuple):
    """The time of a training step: steps made before it, and epochs as a real number; values of the compiled step."""

    step: Int[Array, ""]
    epoch: Float[Array, ""]


@dataclass(frozen=True)
class View:
    """One view of a training example. All views share the random draws of augmentation, except as noted here.

    Attributes:
        size: side of the view as a share of that of the network's input.
        mirror: whether the view is the mirror image of the augmented and mixed image.
        rotate: degrees; that image is rotated by this times batch['turn'] [B], drawn uniformly from -1 to 1.
        erase: 'shared' erases the same box in every view of this size (mirrored in a mirrored one); 'own' draws one for
            this view.
        noise: whether the view gets the pixel noise of the augmentation.
        stats: how the pass through the model treats running statistics. 'sequential': one pass after another, each
            moves them; 'joint': in one pass with the view before it; 'frozen': a pass of its own that does not.
    """

    size: float = 1.0
    mirror: bool = False
    rotate: float = 0.0
    erase: str = "shared"
    noise: bool = True
    stats: str = "sequential"


@dataclass(frozen=True)
class ModelFields:
    """Fields of a model that follow from the config and the classes of the data set.

    Attributes:
        fields: keyword arguments of the model, in addition to `config.model`.
        facts: plain JSON values for results.json.
        files: plain JSON values that are kept in the work directory, by file name (see `Method.kept`).
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)


def no_fields(config: Config, classes: Sequence[str]) -> ModelFields:
    """The default of `Method.model_fields`: the config says everything."""
    del config, classes
    return ModelFields()


def no_check(config: Config) -> None:
    """The default of `Method.check`: every combination of valid fields is allowed."""
    del config


def no_numbers(logits: Array, aux: Aux, batch: Batch) -> dict[str, Array]:
    """The default of `Method.monitor` and of `Method.measure`."""
    del logits, aux, batch
    return {}


def no_score(model: Any, logits: np.ndarray, labels: np.ndarray) -> Scores:
    """The default of `Method.score`: the usual classification scores say everything."""
    del model, logits, labels
    return {}


def one_more_class(model: Any) -> Any:
    """The default of `Method.wider`."""
    return model.clone(num_classes=model.num_classes + 1)


def in_clips(model: Any) -> bool:
    """The default of `Method.single_frames`."""
    del model
    return False


class Classifier(nn.Module):
    """A model in two steps: `embed` describes an example, `classify` turns the description into logits.

    A subclass has `embed`, and makes the layer `classifier` in `setup`.
    """

    def embed(self, batch: Batch, *, train: bool) -> tuple[Array, Aux]:
        """Returns (the features [B, P] that `classify` takes, while training after their dropout; aux).

        aux maps names to intermediates. aux['maps'] holds feature maps by name: 'last' is the last one [B, H, W, P],
        or [B, T, H, W, P] of clips, of a network that has one. aux['affect'] [B, 2], where it is there, is valence and
        arousal, which evaluation scores.
        """
        raise NotImplementedError

    def classify(self, features: Array) -> Float[Array, "*B C"]:
        """Returns the logits of features, or of each place of a map of them."""
        return self.classifier(features)

    def __call__(self, batch: Batch, *, train: bool) -> tuple[Float[Array, "*B C"], Aux]:
        """Returns (logits [B, C], the intermediates of `embed`)."""
        features, aux = self.embed(batch, train=train)
        return self.classify(features), aux


@dataclass(frozen=True)
class Method:
    """One method of the literature, as the harness sees it.

    What a training step calls, in this order; each hook is traced once, into the compiled step:

    Attributes:
        model: called with num_classes, dtype and `config.model`; its `__call__(batch, *, train)` returns
            (logits [B, C], aux), where aux maps names to intermediates. One with a linear classifier is a `Classifier`.
        targets: (memory, batch, clock) -> batch. Changes `target` [B, C] (relabeling) or adds fields, before
            smoothing, metrics and loss see the batch.
        views: what the step draws for each example; the model is called for each.
        partners: (index [B], memory, key) -> rows [B] of the training set. They are drawn like the first view, and
            their outputs come after those of the views; the batch has their fields as `partner_<field>`.
        mix: (batch, key) -> batch, after augmentation: images and targets together, with one key for all views.
            `target_hits` [B, C], where it is set, says how much a prediction of each class counts as right in the
            training accuracy.
        loss: (outputs, batch, clock, **options) -> {term: [B]}. `batch` is that of the first view: image, target
            [B, C], mask [B], weight [B] and the stored fields. Keyword-only parameters are `config.loss.options`.
        weights: weight of each term, the defaults of `config.loss.weights`.
        select: (terms, outputs, batch, clock) -> weight [B], where each term has been multiplied by its weight. No
            gradient flows through it, and the mean of each term divides by its sum.
        monitor: (logits, aux, batch) of the first view -> {name: scalar}; logged as `monitor/<name>`.
        remember: (memory, outputs, batch, clock) -> memory, after the update (see `fer_jax.methods.rows`).
        whole_batch: whether a term or the model couples the examples of a batch beyond batch statistics. Such a
            method, and one with `select` or `remember`, is refused with `config.train.accumulate` above 1.

    What is called before training:

        check: (config) -> None; raises UserError for options that contradict each other.
        model_fields: (config, classes) -> ModelFields, before the model is built.
        kept: for a field of the config that names a source outside of the work directory, the file of
            `ModelFields.files` that replaces it in a run that has saved a checkpoint.
        memory: (fields of the training set [N, ...] but its pixels, and draw [N], uniform from 0 to 1 by the run's
            seed) -> a tree of arrays [N, ...], read and written by `batch['index']`. Saved in the checkpoint once,
            neither averaged nor part of the best model.
        fit: (model, features [N, P], targets [N, C], seed) -> {path of a parameter: array}, in place of gradient steps:
            `features` are aux['features'] of the training images as evaluation sees them, which no parameter changes.
        takes: 'image', or 'frames' for a method that takes clips.
        single_frames: (model) -> whether training takes each frame of a clip as an example of its own.
        published: which parts of the model, by path, take which published network (`fer_jax.weights.networks`).
        undecayed: names of parameters without weight decay, unless a group of `config.optimizer.groups` gives them one.
        wider: (model) -> the same model with one class more; shows which parameters have a row for each class.

    What evaluation and the report read:

        training_only: first path components of parameters that only training uses; they are dropped at test time.
        changeable: fields of `config.model` that may differ when a stored model is scored: they have no parameters.
        score: (model, logits [N, C], labels [N]) -> {name: number}, called once for an evaluation.
        measures: title of each number that the method is scored by instead, where it predicts no classes; larger is
            better, and the first one selects the model. Empty for a classifier.
        measure: (output, aux, batch) -> {name: [B]}, the numbers that `measures` names.
        profiles: title of each intermediate [B, M] whose mean by class the report shows.
        shown: names of intermediates, or of fields of the input, that the report draws for a few examples.
        shown_examples: of each class.
        attention: name of the intermediate that says how much the model itself weighs each place of its input,
            [B, h, w], or each frame of a clip, [B, T]; '' if it weighs neither.
    """

    model: Callable[..., nn.Module]
    loss: Callable[..., Terms]
    weights: Mapping[str, float]
    targets: Callable[[Memory, Batch, Clock], Batch] | None = None
    views: tuple[View, ...] = (View(),)
    partners: Callable[[Rows, Memory, jax.Array], Rows] | None = None
    mix: Callable[[Batch, jax.Array], Batch] | None = None
    select: Callable[[Terms, Outputs, Batch, Clock], PerExample] | None = None
    monitor: Callable[..., dict[str, Array]] = no_numbers
    remember: Callable[[Memory, Outputs, Batch, Clock], Memory] | None = None
    whole_batch: bool = False
    check: Callable[[Config], None] = no_check
    model_fields: Callable[[Config, Sequence[str]], ModelFields] = no_fields
    kept: Mapping[str, str] = field(default_factory=dict)
    memory: Callable[[Mapping[str, np.ndarray]], Memory] | None = None
    fit: Callable[[Any, np.ndarray, np.ndarray, int], Mapping[str, np.ndarray]] | None = None
    takes: str = "image"
    single_frames: Callable[[Any], bool] = in_clips
    published: Mapping[str, str] = field(default_factory=lambda: {"trunk": "resnet"})
    undecayed: tuple[str, ...] = ()
    wider: Callable[[Any], Any] = one_more_class
    training_only: tuple[str, ...] = ()
    changeable: tuple[str, ...] = ()
    score: Callable[[Any, np.ndarray, np.ndarray], Scores] = no_score
    measures: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[..., dict[str, Array]] = no_numbers
    profiles: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    shown_examples: int = 2
    attention: str = ""

    def build(self, num_classes: int, fields: Mapping[str, Any], dtype: Any) -> Any:
        """Returns the linen module; `fields` are those of `config.model` and of `model_fields`. Needs no data."""
        return self.model(num_classes=num_classes, dtype=dtype, **fields)

    def at_test(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the parameters that a model needs at test."""
        return {name: values for name, values in params.items() if name not in self.training_only}
