"""Whether a data set is prepared, and what to do if it is not."""

from __future__ import annotations

import os
import shlex

import tensorflow_datasets as tfds
from tensorflow_datasets.core.constants import DATA_DIR

from fer_jax.errors import UserError


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Whether the data set is on disk, complete.

    Raises:
      UserError: if its folder exists but is not that of a finished build.
    """
    if builder.data_path.exists() and not (builder.data_path / "dataset_info.json").exists():
        raise UserError(f"{builder.data_path} is not a finished data set: delete that folder, then build it again")
    return builder.data_path.exists()


def require_prepared(builder: tfds.core.DatasetBuilder) -> None:
    """Raises `UserError` unless the data set of `builder` is prepared in the version that this code reads."""
    if is_prepared(builder):
        return
    others = other_versions(builder)
    variant = (builder.builder_config_name or "").partition("-")[0]  # options follow it
    called = f"{builder.name}/{variant}" if variant else builder.name
    what = f"{called} {builder.version} is not prepared under {builder.data_dir_root}"
    if others:
        what += f" (only version {', '.join(others)}, written by another version of this program)"
    command = f"python -m tfds_builders build {called}"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        command += " --manual_dir=FOLDER"
    folder = os.path.expanduser(builder.data_dir_root)
    if folder != os.path.expanduser(DATA_DIR):
        command += f" --data_dir={shlex.quote(folder)}"
    raise UserError(f"{what}: run `{command}`")


def other_versions(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Returns the prepared versions of the data set other than the one that `builder` reads."""
    parent = builder.data_path.parent
    if not parent.exists():
        return []
    return sorted(
        path.name
        for path in parent.iterdir()
        if tfds.core.Version.is_valid(path.name) and path.name != str(builder.version)
    )
