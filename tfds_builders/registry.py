"""The data sets that can be built: those of the catalogue, each with a `<name>/<name>_dataset_builder.py`."""

from __future__ import annotations

import importlib
import os
import pathlib
from types import ModuleType
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format

from fer_jax.errors import UserError, first_line, nearest
from tfds_builders.catalogue import CATALOGUE


def names() -> list[str]:
    """Returns the names of all data sets, sorted."""
    return sorted(CATALOGUE)


def builder_module(name: str) -> ModuleType:
    """Imports the module with the builder of data set `name`, which registers it with TFDS."""
    if name not in names():
        raise UserError(f"there is no builder for data set '{name}': {nearest(name, names())}")
    return importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")


def make_builder(name: str, /, data_dir: str | None = None, **options: Any) -> tfds.core.DatasetBuilder:
    """Returns the builder of `name`, or of `name/variant` for data sets that have variants.

    Args:
      name: a data set, with its variant if it has any.
      data_dir: folder of prepared data sets; `$TFDS_DATA_DIR` or `~/tensorflow_datasets` if None.
      options: further arguments of the builder.

    Raises:
      UserError: for an unknown name, and if what is prepared cannot be read.
    """
    base, _, variant = name.partition("/")
    module = builder_module(base)
    try:
        return module.Builder.make(variant, data_dir, options)
    except (AssertionError, KeyError, OSError, RecursionError, ValueError, json_format.ParseError) as error:
        # TFDS reads what is prepared as soon as it makes a builder.
        raise UserError(
            f"the prepared data set {name} under {data_dir or 'the data folder'} cannot be read ({first_line(error)}): "
            "it is damaged or another version wrote it; delete its folder there and prepare it again"
        ) from error


def prepared(name: str, data_dir: str | None = None) -> list[str]:
    """Returns the prepared versions of a data set, each after its variant if it has any."""
    root = pathlib.Path(os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))) / name
    places = [*root.glob("*/dataset_info.json"), *root.glob("*/*/dataset_info.json")]
    there = [place.parent.relative_to(root) for place in places]
    return sorted(str(one) for one in there if not one.name.startswith(("incomplete.", ".")))
