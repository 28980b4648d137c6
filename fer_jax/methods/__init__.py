"""The methods of the literature, one file each: `load(name)` returns the `Method` at the end of a file."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from fer_jax.errors import UserError, nearest

if TYPE_CHECKING:
    from fer_jax.methods.method import Method

NOT_METHODS = frozenset({"class_maps", "learners", "losses", "method", "objective", "rows"})


def names() -> list[str]:
    """Returns the names of the methods, which are those of the files in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg and m.name not in NOT_METHODS)


def load(name: str) -> Method:
    """Returns the method of the file `name`.

    Raises:
        UserError: if there is no method of that name.
    """
    if name not in names():
        raise UserError(f"config.method: no method '{name}' in fer_jax/methods; {nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}").METHOD


def of(config: Any) -> Method:
    """Returns the method of a config, with the strategies of its objective."""
    from fer_jax.methods.objective import combined  # which imports this package

    return combined(load(config.method), config)
