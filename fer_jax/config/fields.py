"""The config of an experiment: the common fields of `table.FIELDS` and the fields of its method."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_collections

from fer_jax import methods
from fer_jax.config.table import FIELDS, GROUPS, Field
from fer_jax.errors import UserError, nearest

# Fields of a Model that the harness sets.
NOT_IN_CONFIG = frozenset({"parent", "name", "num_classes", "dtype"})
Config = Any  # an ml_collections.ConfigDict, whose fields have no static types
MOST_LAYERS = 256
PLAIN = (bool, int, float, str, tuple)


def default_config(experiment: str, variant: str, method: str) -> Config:
    """Returns a config with the common fields and those of `method` at their defaults; experiments then set values.

    Args:
        experiment, variant: names of the experiment and of its variant.
        method: a file in fer_jax/methods, which adds the fields of its Model, its loss terms and their options.
    """
    config: Config = ml_collections.ConfigDict()
    for group in GROUPS:
        _group(config, group)
    for path, field in fields_of(method).items():
        group, _, name = path.rpartition(".")
        _group(config, group)[name] = field.default
    config.experiment, config.variant, config.method = experiment, variant, method
    return config


def variant_config(
    experiment: str, method: str, variant: str, variants: Mapping[str, Callable[[Config], None]]
) -> Config:
    """Returns the config of an experiment: the method's defaults, modified by `variants[variant]`."""
    if variant not in variants:
        raise UserError(f"experiments/{experiment}.py has no variant '{variant}'; {nearest(variant, variants)}")
    config = default_config(experiment, variant, method)
    variants[variant](config)
    return config


@functools.cache
def fields_of(name: str) -> dict[str, Field]:
    """Returns all fields of a config by dotted path, including those of the method, in the order of `table.GROUPS`.

    The help of a model field is its entry under "Attributes:" in the Model's docstring; the help of a loss option is
    its entry under "Args:" in the loss's docstring. If the entry says "one of NAMES", the constant NAMES lists the
    choices.
    """
    from fer_jax.methods import objective, strategies  # imports JAX

    method = methods.load(name)
    metrics = tuple(method.measures or ("accuracy", "mean_recall", "macro_f1", "nll"))  # the default first
    fields = FIELDS | {
        "selection.metric": dataclasses.replace(FIELDS["selection.metric"], default=metrics[0], choices=metrics)
    }
    model: Any = method.model
    helps = _documented(model)
    for field in dataclasses.fields(model):
        if field.name not in NOT_IN_CONFIG and isinstance(field.default, PLAIN):
            fields[f"model.{field.name}"] = _method_field(model, field.name, field.default, helps)
    for term, weight in method.weights.items():
        fields[f"loss.weights.{term}"] = Field(weight, f"weight of the term {term}")
    helps = _documented(method.loss)
    for option in inspect.signature(method.loss).parameters.values():
        if option.kind is option.KEYWORD_ONLY:
            fields[f"loss.options.{option.name}"] = _method_field(method.loss, option.name, option.default, helps)
    for strategy in strategies.names():
        apply = objective.load(strategy).apply
        helps = _documented(apply)
        for option, default in objective.load(strategy).options().items():
            fields[f"strategy.{strategy}.{option}"] = _method_field(apply, option, default, helps)
    groups = [*GROUPS, *(f"strategy.{strategy}" for strategy in strategies.names())]
    return dict(sorted(fields.items(), key=lambda item: groups.index(item[0].rpartition(".")[0])))


def _method_field(owner: Any, name: str, default: Any, helps: Mapping[str, str]) -> Field:
    text = helps.get(name, "")
    named = re.search(r"one of ([A-Z_]+)", text)
    choices = tuple(getattr(sys.modules[owner.__module__], named[1])) if named else ()
    limits = ""
    if name.endswith(("blocks", "convolutions")):
        limits = f"[1, {MOST_LAYERS}]"  # each is traced
    elif isinstance(default, int) and default > 0 and not isinstance(default, bool):
        limits = "[1, inf)"
    elif isinstance(default, float) and name.startswith("dropout"):
        limits = "[0, 1)"
    text = re.sub(r",? ?one of [A-Z_]+", "", text).split(". ")[0]
    return Field(default, text.rstrip("."), choices, limits)


def _documented(thing: Any) -> dict[str, str]:
    """Returns what a docstring says of each name under 'Attributes:' or 'Args:', in one line."""
    _, _, section = (inspect.getdoc(thing) or "").partition(
        "\nAttributes:\n" if inspect.isclass(thing) else "\nArgs:\n"
    )
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", section.split("\n\n")[0], re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


def check_fields(config: Config) -> None:
    """Raises UserError for a field that nothing reads, and for a value of the wrong type or out of range."""
    fields = fields_of(config.get("method", ""))
    for path, value in leaves(config, fields):
        if path not in fields:
            raise UserError(f"config.{path}: nothing reads this field; {nearest_field(path, fields)}")
        fields[path].check(path, value)


def leaves(config: Config, fields: Iterable[str], group: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted path, value) of each field; data.builder, which has subfields, counts as one value."""
    for name, value in config.items():
        path = f"{group}{name}"
        if isinstance(value, ml_collections.ConfigDict) and path not in fields:
            yield from leaves(value, fields, f"{path}.")
        else:
            yield path, value


def nearest_field(path: str, known: Iterable[str]) -> str:
    """Returns a hint for a misspelled, abbreviated or misplaced field: 'lr' suggests 'optimizer.learning_rate'."""
    if path.startswith("augmentation."):  # version 0.1 had 25 of them
        return "augmentation is a list of operations in config.augmentation.train: see CHANGELOG.md"
    name, known = path.rpartition(".")[2], list(known)
    for field in known:
        last = field.rpartition(".")[2]
        if name in (last, "".join(word[:1] for word in last.split("_"))):
            return f"did you mean '{field}'?"
    return nearest(path, known)


def check_expression(expression: Any, field: str) -> None:
    """Raises UserError unless `expression` is a regular expression."""
    try:
        re.compile(expression)
    except (re.error, TypeError) as error:
        raise UserError(f"{field}: {expression!r} is not a regular expression ({error})") from error


def assign(config: Config, path: str, value: Any) -> None:
    """Sets the field at a dotted path."""
    group, _, name = path.rpartition(".")
    _group(config, group)[name] = value


def _group(config: Config, path: str) -> Config:
    """Returns the group of fields at a dotted path, and creates it if necessary; '' is the config itself."""
    for name in filter(None, path.split(".")):
        if name not in config:
            config[name] = ml_collections.ConfigDict()
        config = config[name]
    return config


def config_from(stored: Mapping[str, Any]) -> Config:
    """Returns the config that was stored as plain values; missing fields get their defaults."""
    config = default_config("", "", stored["method"])
    with config.unlocked():
        config.update(as_tuples(stored))
    return config


def as_tuples(value: Any) -> Any:
    """Returns a JSON value with tuples, which are hashable, in place of lists."""
    if isinstance(value, Mapping):
        return {name: as_tuples(v) for name, v in value.items()}
    return tuple(as_tuples(v) for v in value) if isinstance(value, list) else value
