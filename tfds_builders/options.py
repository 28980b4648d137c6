"""What a user may choose when a data set is prepared."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import tensorflow_datasets as tfds

from fer_jax.errors import UserError, nearest
from fer_jax.faces.pictures import LARGEST_SIDE

Chosen = TypeVar("Chosen", bound=Any)


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may choose; builders add fields.

    Attributes:
        size: side of the stored pictures if they are cropped or resized; 0 if they are stored as they are.
    """

    size: int = 0


@dataclasses.dataclass(frozen=True)
class CropOptions(Options):
    """
    Attributes:
        crop: 'faces', found and aligned as for prediction; 'boxes', the squares around the data set's boxes; 'whole',
            the photo with black bars; or another value of the builder's.
        margin: around the face on each side, as a share of the side of the crop.
        yunet: path of the ONNX file of the detector YuNet; '' fetches it (see `detection.best_detector`).
    """

    crop: str = "faces"
    margin: float = 0.0
    yunet: str = ""


class OptionsConfig(tfds.core.BuilderConfig):
    """A named set of options."""

    def __init__(self, *, options: Options, **kwargs: Any):
        super().__init__(**kwargs)
        self.options = options


def replaced(dataset: str, base: Chosen, changes: Mapping[str, Any], choices: Mapping[str, Collection[Any]]) -> Chosen:
    """Returns the options of a variant, a dataclass, with some of them changed.

    Raises:
        UserError: for an unknown option, a value of another type, and one that is not among the option's `choices`.
    """
    fields = [field.name for field in dataclasses.fields(base)]
    for field, value in changes.items():
        if field not in fields:
            raise UserError(f"{dataset} has no option '{field}': {nearest(field, fields)}")
        wanted = type(getattr(base, field))
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UserError(f"{dataset}: option {field}={value!r} must be of type {wanted.__name__}")
        if field in choices and value not in choices[field]:
            hint = nearest(str(value), list(map(str, choices[field])))
            raise UserError(f"{dataset}: option {field}='{value}' is not one of its values: {hint}")
    return dataclasses.replace(base, **changes)


def check_ranges(dataset: str, options: Any, smallest: int) -> None:
    """Raises unless the `size`, at least `smallest`, and the `margin` and `every` that options may have are valid."""
    margin, every = getattr(options, "margin", 0.0), getattr(options, "every", 1)
    if not smallest <= options.size <= LARGEST_SIDE:
        whole = "" if smallest else ", or 0 for pictures as they are"
        raise UserError(f"{dataset}: option size={options.size} must be from 1 to {LARGEST_SIDE}{whole}: give size=112")
    if not -0.5 < margin <= 2:
        raise UserError(f"{dataset}: option margin={margin} must be a share of the face above -0.5, 2 at most")
    if every < 1:
        raise UserError(f"{dataset}: option every={every} must be 1 or more: each n-th frame, beginning with the first")


def config_name(variant: str, options: Options, base: Options) -> str:
    """Returns the name of a configuration, which shows the options that differ from those of its variant."""
    parts = [variant]
    for field, value in dataclasses.asdict(options).items():
        if value != getattr(base, field):
            # The last part of a path, such as that of a detector's weights: the name becomes a folder's.
            parts.append(f"{field}{pathlib.PurePath(str(value)).name}")
    return "-".join(parts)
