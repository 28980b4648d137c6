"""Strategies: functions from Method to Method, combined from left to right by `config.objective='small_loss+cutmix'`.

Each file of `fer_jax/methods/strategies` ends with `STRATEGY = Strategy(...)`. Its options are the fields of
`config.strategy.<name>`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from fer_jax.errors import UserError, nearest
from fer_jax.methods import strategies
from fer_jax.methods.method import Config, Method, no_check


@dataclasses.dataclass(frozen=True)
class Strategy:
    """A way to train that does not depend on the method.

    Attributes:
        apply: (method, **options) -> the method that trains in this way. Keyword-only parameters with defaults are
            the fields of `config.strategy.<name>`.
        claims: the hooks of `Method` that it sets; a second strategy, or a method, with the same hook is refused.
        needs: what a method must have to fit: 'classes', 'images' (it does not take clips), 'one view' (before any
            strategy) and 'one size' (of the views after all of them).
        check: (config) -> None; raises UserError for options that make no sense, or not with this config.
    """

    apply: Callable[..., Method]
    claims: tuple[str, ...]
    needs: tuple[str, ...] = ("classes",)
    check: Callable[[Config], None] = no_check

    def options(self) -> dict[str, Any]:
        """Returns the options at their defaults."""
        parameters = inspect.signature(self.apply).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def load(name: str) -> Strategy:
    """Returns a strategy.

    Raises:
        UserError: if there is no strategy of that name.
    """
    if name not in strategies.names():
        raise UserError(f"config.objective: there is no strategy '{name}'; {nearest(name, strategies.names())}")
    return importlib.import_module(f"{strategies.__name__}.{name}").STRATEGY


def parts(objective: str) -> list[str]:
    """Returns the names in an objective such as 'small_loss+cutmix', in order."""
    return [name.strip() for name in objective.split("+")] if objective.strip() else []


def combined(method: Method, config: Config) -> Method:
    """Returns `method` with the strategies of `config.objective` applied from left to right."""
    for name in parts(config.objective):
        method = load(name).apply(method, **dict(config.strategy.get(name, {})))
    return method


def check(method: Method, config: Config) -> None:
    """Raises UserError where `config.objective` does not fit the method, itself or the options that are set."""
    chosen, claimed = parts(config.objective), dict.fromkeys(_own_hooks(method), config.method)
    trained = combined(method, config)
    for name in chosen:
        strategy, here = load(name), f"config.objective='{config.objective}'"
        if misfit := _misfit(strategy, method, trained):
            raise UserError(f"{here}: {name} {misfit.format(method=config.method)}")
        for hook in strategy.claims:
            if hook in claimed:
                raise UserError(f"{here}: {claimed[hook]} and {name} both set '{hook}'; leave one of them out")
            claimed[hook] = name
        if "views" in strategy.claims and (owner := claimed.get("partners")):
            order = "+".join([*(other for other in chosen if other != owner), owner])
            raise UserError(f"{here}: {owner} must come after {name}, as in config.objective='{order}'")
        strategy.check(config)
    for name in strategies.names():
        changed = [field for field, default in load(name).options().items() if config.strategy[name][field] != default]
        if changed and name not in chosen:
            raise UserError(
                f"config.strategy.{name}.{changed[0]}={config.strategy[name][changed[0]]!r} has no effect: "
                f"config.objective='{config.objective}' does not name {name}"
            )
    if config.train.accumulate > 1 and (trained.whole_batch or trained.select or trained.remember):
        raise UserError(
            f"config.train.accumulate={config.train.accumulate} splits the batch, and "
            f"{config.objective or config.method} relates its examples to each other: set it to 1"
        )


def _own_hooks(method: Method) -> list[str]:
    """Returns the hooks that a method sets itself, which no strategy may replace."""
    optional = [f.name for f in dataclasses.fields(Method) if f.default is None]
    return [name for name in optional if vars(method)[name] is not None]


def _misfit(strategy: Strategy, method: Method, trained: Method) -> str:
    """Says why a strategy does not fit a method, or what all strategies make of it; empty where it does."""
    reasons = {
        "classes": (bool(method.measures), "needs classes, and method {method} predicts none"),
        "images": (method.takes != "image", "works on images, and method {method} takes clips"),
        "one view": (len(method.views) > 1, "works on one view of an example, and {method} has several"),
        "one size": (
            len({v.size for v in trained.views}) > 1,
            "changes the same pixels of all views, which differ in size",
        ),
    }
    return next((text for need in strategy.needs for holds, text in [reasons[need]] if holds), "")
