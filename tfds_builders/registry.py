"""Which data sets can be built: every folder `<name>/` here that holds a `<name>_dataset_builder.py`."""

from __future__ import annotations

import importlib
import os
import pathlib
from types import ModuleType
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format

from fer_jax.errors import UserError, first_line, nearest
from tfds_builders.picture_builder import PictureBuilder

_HERE = pathlib.Path(__file__).parent


def names() -> list[str]:
    """Returns the names of all data sets, sorted."""
    return sorted(
        path.parent.name
        for path in _HERE.glob("*/*_dataset_builder.py")
        if path.name == f"{path.parent.name}_dataset_builder.py"
    )


def builder_module(name: str) -> ModuleType:
    """Imports the module with the builder of data set `name`; TFDS knows it by that name from then on."""
    if name not in names():
        raise UserError(f"there is no builder for data set '{name}': {nearest(name, names())}")
    return importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")


def takes_options(module: ModuleType) -> bool:
    """Whether the data set of a builder's module comes in variants and has options."""
    return issubclass(module.Builder, PictureBuilder) or hasattr(module, "make_builder")


def make_builder(name: str, /, data_dir: str | None = None, **options: Any) -> tfds.core.DatasetBuilder:
    """Returns the builder of `name`, or of `name/variant` for data sets that come in variants.

    Args:
      name: a data set, with a variant where it comes in some.
      data_dir: where prepared data sets lie; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` when None.
      options: further arguments of the builder.

    Raises:
      UserError: for an unknown name, and where what an earlier build left cannot be read.
    """
    base, _, variant = name.partition("/")
    module = builder_module(base)
    if variant and not takes_options(module):
        raise UserError(f"data set '{base}' has no variants: leave out '/{variant}'")
    try:
        if issubclass(module.Builder, PictureBuilder):
            return module.Builder.make(variant, data_dir, options)
        if hasattr(module, "make_builder"):
            return module.make_builder(variant=variant, data_dir=data_dir, **options)
        return module.Builder(data_dir=data_dir, **options)
    except (AssertionError, KeyError, ValueError, json_format.ParseError) as error:
        # TFDS reads what an earlier build left as soon as it makes a builder.
        raise UserError(
            f"what was prepared of {name} under {data_dir or 'the data folder'} cannot be read ({first_line(error)}): "
            "it is damaged or another version wrote it; delete its folder there and prepare it again"
        ) from error


def prepared(name: str, data_dir: str | None = None) -> list[str]:
    """Returns what of a data set lies prepared: versions, after their variants where there are some."""
    root = pathlib.Path(os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))) / name
    places = [*root.glob("*/dataset_info.json"), *root.glob("*/*/dataset_info.json")]
    there = [place.parent.relative_to(root) for place in places]
    return sorted(str(one) for one in there if not one.name.startswith(("incomplete.", ".")))
