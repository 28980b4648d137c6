"""The contract between a method and the harness: everything the harness may ask a method is a field of `Method`.

Each file of this package ends with `METHOD = Method(...)`. The harness knows no method by name; it loads one with
`fer_jax.methods.load(name)` and reads these fields. Shapes: B examples in a batch, N in the training set, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

Batch = Mapping[str, Array]
Aux = Mapping[str, Any]
Terms = Mapping[str, Float[Array, "B"]]
Config = Any  # an ml_collections.ConfigDict, whose fields have no static types
Scores = dict[str, float | None]


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


def no_monitor(logits: Float[Array, "B C"], aux: Aux, batch: Batch) -> dict[str, Float[Array, ""]]:
    """The default of `Method.monitor`: nothing but the loss terms is logged."""
    del logits, aux, batch
    return {}


def no_score(model: Any, logits: np.ndarray, labels: np.ndarray) -> Scores:
    """The default of `Method.score`: the usual classification scores say everything."""
    del model, logits, labels
    return {}


def one_more_class(model: Any) -> Any:
    """The default of `Method.wider`."""
    return model.clone(num_classes=model.num_classes + 1)


@dataclass(frozen=True)
class Method:
    """One method of the literature, as the harness sees it.

    Attributes:
        model: called with num_classes, dtype and `config.model`; its `__call__(batch, *, train)` returns
            (logits [B, C], aux), where aux maps names to intermediates.
        loss: (logits, aux, batch, **options) -> {term: [B]}, called in each training step. `batch` has target [B, C],
            mask [B] and the stored fields. Keyword-only parameters are the fields of `config.loss.options`.
        weights: weight of each term, the defaults of `config.loss.weights`.
        check: (config) -> None, called before anything is built; raises UserError for options that contradict
            each other.
        model_fields: (config, classes) -> ModelFields, called before the model is built.
        kept: for a field of `config.model` that names a source outside of the work directory, the file of
            `ModelFields.files` that replaces it in a run that has saved a checkpoint.
        wider: (model) -> the same model with one class more; shows which parameters have a row for each class.
        takes: 'image', or 'frames' for a method that takes clips.
        single_frames: (model) -> whether training takes each frame of a clip as an example of its own.
        changeable: fields of `config.model` that may differ when a stored model is scored: they have no parameters.
        monitor: (logits, aux, batch) -> {name: scalar}, called in each training step; logged as `monitor/<name>`.
        score: (model, logits [N, C], labels [N]) -> {name: number}, called once for an evaluation.
        measures: title of each number that the method is scored by instead, where it predicts no classes; larger is
            better, and the first one selects the model. Empty for a classifier.
        measure: (output, aux, batch) -> {name: [B]}, the numbers that `measures` names; called at evaluation.
        profiles: title of each intermediate [B, M] whose mean by class the report shows.
        shown: names of intermediates, or of fields of the input, that the report draws for a few examples.
        shown_examples: of each class.
        published: which parts of the model, by path, take which published network (`fer_jax.weights.networks`).
    """

    model: Callable[..., nn.Module]
    loss: Callable[..., Terms]
    weights: Mapping[str, float]
    check: Callable[[Config], None] = no_check
    model_fields: Callable[[Config, Sequence[str]], ModelFields] = no_fields
    kept: Mapping[str, str] = field(default_factory=dict)
    wider: Callable[[Any], Any] = one_more_class
    takes: str = "image"
    single_frames: Callable[[Any], bool] = lambda model: False
    changeable: tuple[str, ...] = ()
    monitor: Callable[..., dict[str, Array]] = no_monitor
    score: Callable[[Any, np.ndarray, np.ndarray], Scores] = no_score
    measures: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[..., dict[str, Array]] = no_monitor
    profiles: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    shown_examples: int = 2
    published: Mapping[str, str] = field(default_factory=lambda: {"trunk": "resnet"})

    def build(self, num_classes: int, fields: Mapping[str, Any], dtype: Any) -> Any:
        """Returns the linen module; `fields` are those of `config.model` and of `model_fields`. Needs no data."""
        return self.model(num_classes=num_classes, dtype=dtype, **fields)
