"""Strategies that run over any method that they fit, one file each: see `fer_jax.methods.objective`."""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """Returns the names of the strategies, which are those of the files in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
