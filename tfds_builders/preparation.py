"""Prepares a data set for the command line or a training run, and prints what was found and written."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from fer_jax.data.sources.records import data_digest
from fer_jax.errors import UserError, first_line
from fer_jax.locks import alone
from fer_jax.storage import sync, sync_all
from tfds_builders.listing import told
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.prepared import other_versions


def prepare(builder: tfds.core.DatasetBuilder, manual_dir: str | None = None, overwrite: bool = False) -> None:
    """Prepares `builder`'s data set and prints what it found and wrote.

    Args:
        builder: of the data set.
        manual_dir: folder with the original files; `<data_dir>/downloads/manual` if None.
        overwrite: write again what is prepared, which stays until the new data are complete.
    """
    if others := other_versions(builder):
        print(f"note: {builder.name} {', '.join(others)}, also prepared, is another version and is not used")
    tfds.disable_progress_bar()  # the builders have their own, which knows the number of examples
    start = time.perf_counter()
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    folder = builder.data_path
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with alone(_lock(folder)):  # another process may be preparing it
            if not overwrite and (folder / "dataset_info.json").exists():
                print(f"{builder.name} {builder.version} has been prepared by another process: {folder}")
                return
            with _replacing(builder, folder):
                builder.download_and_prepare(download_config=config)
    except (BrokenProcessPool, MemoryError) as error:
        raise UserError(
            f"a process that wrote {builder.name} ended early, perhaps because memory ran out; run the same "
            "command again to resume, with --jobs=1 for less memory"
        ) from error
    except (OSError, RuntimeError) as error:  # array_record reports a full disk as a RuntimeError
        raise UserError(_told(builder, error)) from error
    if isinstance(builder, PictureBuilder) and builder.contents is not None:
        for line in builder.contents.found:
            print(f"found {line}")
        for line in builder.contents.warnings:
            print(f"warning: {line}")
    for split in builder.info.splits:
        data_digest(builder, split)  # computed here, it never has to be at the start of a run
    print_splits(builder)
    print(f"wrote {builder.data_dir} in {time.perf_counter() - start:.0f} s")


def discard_unfinished(builder: Any) -> None:
    """Deletes what a killed rebuild left beside prepared data, unless another process is building."""
    with contextlib.suppress(UserError, OSError), alone(_lock(builder.data_path), busy="is being prepared"):
        _clear(builder.data_path)
        if isinstance(builder, PictureBuilder):
            shutil.rmtree(builder.partial(), ignore_errors=True)


def _lock(folder: epath.Path) -> epath.Path:
    return folder.parent / f".{folder.name}.lock"


def _clear(folder: epath.Path) -> tuple[epath.Path, epath.Path]:
    """Deletes what killed builds left beside a data set; returns the folders for the new and the old data."""
    new, old = (folder.parent / f".{folder.name}.{word}" for word in ("new", "old"))
    if old.exists() and not folder.exists():  # a build was killed between the two renames
        old.rename(folder)
    for left in folder.parent.iterdir():  # a glob would read brackets in the path of the folder
        unfinished = left.name.startswith("incomplete.") and left.name.endswith((f"_{folder.name}", f"_{new.name}"))
        if unfinished or left in (new, old):
            left.rmtree()
    return new, old


@contextlib.contextmanager
def _replacing(builder: Any, folder: epath.Path) -> Iterator[None]:
    """Lets `builder` write beside an earlier data set, which is replaced when the new one is whole.

    TFDS itself deletes what it overwrites before it writes.
    """
    new, old = _clear(folder)
    if not folder.exists():
        yield
        return
    builder._data_dir = str(new)
    try:
        yield
    finally:
        builder._data_dir = str(folder)
    sync_all(new)
    folder.rename(old)
    new.rename(folder)
    with contextlib.suppress(OSError):  # Windows cannot
        sync(folder.parent)
    builder.info.update_data_dir(str(folder))
    old.rmtree()


def _told(builder: tfds.core.DatasetBuilder, error: OSError | RuntimeError) -> str:
    """Returns what could not be read or written."""
    file = str(getattr(error, "filename", None) or "")
    if file and not file.startswith(str(builder.data_dir_root)):
        return f"cannot prepare {builder.name}: {file} cannot be read ({first_line(error)}); check its permissions"
    return (
        f"cannot prepare {builder.name} under {builder.data_dir} ({first_line(error)}); "
        "make room there, or give another folder with --data_dir (in a config: data.data_dir)"
    )


def print_splits(builder: tfds.core.DatasetBuilder) -> None:
    """Prints the number of examples of every split, and of every class if the metadata have them."""
    counts = dict(builder.info.metadata or {}).get("counts", {})
    for split, info in builder.info.splits.items():
        print(f"  {split:13}{info.num_examples:7,}  {told(counts.get(split, {}))}")
