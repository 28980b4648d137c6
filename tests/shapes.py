"""The type checker that tests give to jaxtyping: it checks the shapes and types of arrays, and nothing else.

Other annotations are pyright's part, and tests hand in stand-ins for them. NumPy's arrays pass for JAX's.
"""

from collections.abc import Callable
from typing import Any, get_args, get_origin

import jaxtyping
from beartype import beartype

# Packages in which shapes are annotated.
PACKAGES = ("fer_jax.nn", "fer_jax.methods", "fer_jax.data.augment", "fer_jax.data.targets")


def arrays_only(function: Callable) -> Callable:
    """Applies beartype to those parameters and results of a function that are annotated as arrays."""
    hints = {name: array_hint(hint) for name, hint in function.__annotations__.items()}
    function.__annotations__ = {name: hint for name, hint in hints.items() if hint is not None}
    return beartype(function) if function.__annotations__ else function


def array_hint(hint: Any) -> Any:
    """The part of an annotation that is about arrays, of whatever library; None if there is none."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return hint.dtype[Any, hint.dim_str]
    parts = [array_hint(part) for part in get_args(hint)]
    if not any(parts):
        return None
    if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        return tuple[*(part or Any for part in parts)]
    if type(None) in get_args(hint) and len(parts) == 2:
        return next(filter(None, parts)) | None
    return None
