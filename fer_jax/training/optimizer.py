"""The optimizer: an update rule, a learning-rate schedule, and parameter groups chosen by regular expressions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from fer_jax import methods
from fer_jax.config.fields import check_expression
from fer_jax.config.steps import phases
from fer_jax.config.table import Field
from fer_jax.errors import UserError, nearest
from fer_jax.training.muon import muon

Schedule = Callable[[Any], Any]
PyTree = Any

GROUP_FIELDS = {
    "lr_multiplier": Field(1.0, "multiplies the learning rate", range="[0, inf)"),
    "weight_decay": Field(0.0, "weight decay; by default that of the optimizer", range="[0, inf)"),
    "frozen": Field(False, "do not train these parameters"),
}


def make_optimizer(
    config: Any, params: PyTree, total_steps: int, steps_per_epoch: float
) -> tuple[optax.GradientTransformation, Schedule]:
    """Builds the optimizer of `config.optimizer`, `config.schedule` and `config.train.phases`.

    Args:
        config: of the run.
        params: the parameters, or their shapes: group expressions are matched with their paths.
        total_steps: optimizer steps in the run.
        steps_per_epoch: for schedules in epochs.

    Returns:
        The transformation, and the learning rate by step of parameters in no group.

    Raises:
        UserError: for a field that does not apply, or a group that matches no parameter.
    """
    parts = phases(config, total_steps)
    made = [_one_phase(part.config, params, part.end - part.start, steps_per_epoch) for part in parts]
    if len(parts) == 1:
        return made[0]
    ends = [part.end for part in parts]
    return in_phases([tx for tx, _ in made], ends), optax.join_schedules([schedule for _, schedule in made], ends[:-1])


def _one_phase(
    config: Any, params: PyTree, total_steps: int, steps_per_epoch: float
) -> tuple[optax.GradientTransformation, Schedule]:
    options = config.optimizer
    schedule = make_schedule(config, total_steps, steps_per_epoch)
    momentum = make_momentum(config, total_steps)
    groups = _groups(options.groups)
    labels = _labels(groups, params)
    undecayed = methods.of(config).undecayed
    rules: dict[Any, optax.GradientTransformation] = {
        "default": _rule(options, schedule, momentum, options.weight_decay, undecayed)
    }
    for name, (_, group) in enumerate(groups):
        if group["frozen"]:
            rules[str(name)] = optax.set_to_zero()  # keeps no moments
        else:
            own = group["weight_decay"]
            decay, spared = (options.weight_decay, undecayed) if own is None else (own, ())
            rules[str(name)] = _rule(options, _scaled(schedule, group["lr_multiplier"]), momentum, decay, spared)
    tx = optax.partition(rules, labels) if groups else rules["default"]
    if options.clip_norm:
        # One norm over the gradients of all groups but the frozen ones.
        frozen = jax.tree.map(lambda name: name != "default" and groups[int(name)][1]["frozen"], labels)
        without_frozen = optax.masked(optax.set_to_zero(), frozen)
        tx = optax.chain(without_frozen, optax.clip_by_global_norm(options.clip_norm), tx)
    return tx, schedule


def _rule(
    options: Any, schedule: Schedule, momentum: Schedule | None, weight_decay: float, undecayed: Sequence[str]
) -> optax.GradientTransformation:
    """Returns the rule of one group: coupled L2, moments, decoupled decay, learning rate."""
    if options.name == "muon":
        return _muon(options, schedule, momentum, weight_decay)
    if options.name == "adam" or options.name == "adamw":
        fixed = {"b2": options.b2, "eps": options.eps}
        moments = _moments(optax.scale_by_adam, fixed, "b1", options.b1 if momentum is None else momentum)
    else:
        fixed = {"nesterov": options.nesterov}
        moments = _moments(optax.trace, fixed, "decay", options.momentum if momentum is None else momentum)
    decoupled = options.decoupled or options.name == "adamw"
    decay = optax.add_decayed_weights(weight_decay, mask=_decayed(options.decay_1d, undecayed))
    parts = [moments, decay] if decoupled else [decay, moments]
    if not weight_decay:
        parts = [moments]
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def _muon(
    options: Any, schedule: Schedule, momentum: Schedule | None, weight_decay: float
) -> optax.GradientTransformation:
    """Returns Muon, and Adam with Nesterov momentum at `optimizer.adam_share` of the learning rate for the rest."""
    if momentum is not None or not (options.decoupled and options.nesterov):
        raise UserError(
            "config.optimizer.name='muon' supports only constant Nesterov momentum and decoupled weight decay: set "
            "config.optimizer.nesterov=True, config.optimizer.decoupled=True and config.schedule.momentum=()"
        )
    adam = optax.adam(_scaled(schedule, options.adam_share), options.b1, options.b2, options.eps, nesterov=True)
    return muon(schedule, options.momentum, weight_decay, adam)


def _moments(rule: Any, fixed: Mapping[str, Any], name: str, value: float | Schedule) -> optax.GradientTransformation:
    """Returns the rule with a constant momentum, or with one that follows a schedule."""
    if callable(value):
        return optax.inject_hyperparams(rule, static_args=tuple(fixed))(**fixed, **{name: value})
    return rule(**fixed, **{name: value})


def make_momentum(config: Any, total_steps: int) -> Schedule | None:
    """Returns the momentum (Adam's b1) by step: `schedule.momentum` = (high, low), against the learning rate.

    It falls from high to low while the rate rises, then returns (Smith 2018). None if the momentum is constant.
    """
    options = config.schedule
    if not options.momentum:
        return None
    high, *others = options.momentum
    low = others[0] if len(others) == 1 else math.nan
    if not 0 <= low <= high < 1:
        raise UserError(f"config.schedule.momentum={options.momentum}: give (high, low), such as (0.95, 0.85)")
    if options.name != "one_cycle":
        raise UserError(f"config.schedule.momentum needs config.schedule.name='one_cycle', not '{options.name}'")
    rise, last = _turn(options, total_steps)
    return lambda step: jnp.where(
        step < rise, _cosine(step / rise, high, low), _cosine((step - rise) / (last - rise), low, high)
    )


def _turn(options: Any, total_steps: int) -> tuple[float, int]:
    """Returns the step of the peak, as in PyTorch but always inside the run, and the last step."""
    last = max(total_steps - 1, 1)
    return min(max(options.peak_fraction * total_steps - 1, 1e-6), last - 1e-6), last


def make_schedule(config: Any, total_steps: int, steps_per_epoch: float) -> Schedule:
    """Returns the learning rate by step that `config.schedule` describes, times a linear warm-up.

    Schedules, with peak `optimizer.learning_rate`:
        constant: the peak.
        linear: from the peak to `final_fraction` of it after the last step (Caffe's "poly" with power 1).
        step: times `factor` at each of `boundaries_epochs`.
        exponential: times `factor` per epoch, continuously.
        cosine: from the peak to `final_fraction` of it at the end.
        one_cycle: cosine from peak / `div_factor` up to the peak at `peak_fraction` of the run, then cosine
            down to peak / `div_factor` / `final_div_factor` (Smith 2018; PyTorch's OneCycleLR, step by step).
        triangular: linear from peak / `div_factor` to the peak at `peak_fraction`, then linear down to
            `final_fraction` of it.
    """
    options, peak = config.schedule, config.optimizer.learning_rate
    rise, last = _turn(options, total_steps)
    if min(options.boundaries_epochs, default=0) < 0:
        raise UserError(f"config.schedule.boundaries_epochs={options.boundaries_epochs}: give epochs, such as (30, 60)")
    drops = jnp.array([epoch * steps_per_epoch for epoch in options.boundaries_epochs], jnp.float32)
    low = peak / options.div_factor
    schedules: Mapping[str, Schedule] = {
        "constant": lambda step: jnp.full_like(step, peak),
        "linear": lambda step: _linear(step / total_steps, peak, peak * options.final_fraction),
        "step": lambda step: peak * options.factor ** jnp.sum(step >= drops).astype(jnp.float32),
        "exponential": lambda step: peak * options.factor ** (step / steps_per_epoch),
        "cosine": lambda step: _cosine(step / last, peak, peak * options.final_fraction),
        "one_cycle": lambda step: jnp.where(
            step < rise,
            _cosine(step / rise, low, peak),
            _cosine((step - rise) / (last - rise), peak, low / options.final_div_factor),
        ),
        "triangular": lambda step: jnp.where(
            step < rise,
            _linear(step / rise, low, peak),
            _linear((step - rise) / (last - rise), peak, peak * options.final_fraction),
        ),
    }
    shape, warmup = schedules[options.name], options.warmup_epochs * steps_per_epoch

    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        warm = jnp.minimum((step + 1.0) / warmup, 1.0) if warmup else 1.0
        return shape(step) * warm

    return schedule


def _cosine(fraction: Any, start: float, end: float) -> jax.Array:
    return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(fraction, 0.0, 1.0)))


def _linear(fraction: Any, start: float, end: float) -> jax.Array:
    return start + (end - start) * jnp.clip(fraction, 0.0, 1.0)


def _scaled(schedule: Schedule, multiplier: float) -> Schedule:
    return lambda step: multiplier * schedule(step)


def _decayed(decay_1d: bool, undecayed: Sequence[str]) -> Callable[[PyTree], PyTree] | None:
    """Returns the mask function of the parameters with weight decay; None if all have it."""
    if decay_1d and not undecayed:
        return None
    return lambda params: jax.tree.map_with_path(
        lambda path, p: (decay_1d or p.ndim > 1) and path[-1].key not in undecayed, params
    )


def _groups(given: Any) -> list[tuple[str, dict[str, Any]]]:
    groups = []
    for number, group in enumerate(given):
        try:
            expression, fields = group[0], dict(group[1])
            if len(group) != 2 or not isinstance(expression, str):
                raise TypeError
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise UserError(
                f"config.optimizer.groups[{number}]={group!r}: give ('expression', {{'lr_multiplier': 0.1}})"
            ) from error
        for name, value in fields.items():
            if name not in GROUP_FIELDS:
                raise UserError(f"config.optimizer.groups[{number}]: no field '{name}'; {nearest(name, GROUP_FIELDS)}")
            GROUP_FIELDS[name].check(f"optimizer.groups[{number}].{name}", value)
        check_expression(expression, f"config.optimizer.groups[{number}]")
        groups.append((expression, {"lr_multiplier": 1.0, "weight_decay": None, "frozen": False} | fields))
    return groups


def _labels(groups: list[tuple[str, dict[str, Any]]], params: PyTree) -> PyTree:
    """Returns the group of each parameter, by number: the first whose expression is found in its path."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    labels = {}
    for path in flat:
        matches = [str(n) for n, (expression, _) in enumerate(groups) if re.search(expression, path)]
        labels[path] = matches[0] if matches else "default"
    for number, (expression, _) in enumerate(groups):
        if str(number) not in labels.values():
            raise UserError(
                f"config.optimizer.groups[{number}]: '{expression}' matches no parameter outside earlier groups; "
                f"{nearest(expression, flat)}"
            )
    return flax.traverse_util.unflatten_dict(labels, sep="/")


class PhasesState(NamedTuple):
    """Number of finished steps [], and the optimizer state of each phase, which is the initial one until it begins."""

    count: jax.Array
    inner: tuple[Any, ...]


def in_phases(transformations: Sequence[Any], ends: Sequence[int]) -> optax.GradientTransformation:
    """Applies each transformation up to its end, then the next one from its initial state."""

    def init(params: Any) -> PhasesState:
        return PhasesState(jnp.zeros((), jnp.int32), tuple(t.init(params) for t in transformations))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def in_phase(number: int, inner: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
            mine, new = transformations[number].update(updates, inner[number], params)
            return mine, (*inner[:number], new, *inner[number + 1 :])

        branches = [lambda inner, n=n: in_phase(n, inner) for n in range(len(transformations))]
        phase = jnp.sum(state.count >= jnp.asarray(ends[:-1]), dtype=jnp.int32)
        mine, inner = jax.lax.switch(phase, branches, state.inner)
        return mine, PhasesState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)
