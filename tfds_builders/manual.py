"""The base of builders that read the user's files: everything is checked before anything is written."""

from __future__ import annotations

import abc
import io
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from PIL import Image
from tensorflow_datasets.core.constants import DATA_DIR
from tqdm import tqdm

from fer_jax.errors import UserError
from fer_jax.storage import local


@dataclass(frozen=True)
class Contents:
    """The checked contents of a folder of original files, and how to iterate over them.

    Attributes:
      examples: split -> function that yields the split's examples in their final order.
      counts: split -> class name -> number of examples.
      found: lines on the files that were used.
      warnings: lines on what is unusual but not wrong.
      complete: whether the counts are those of the published data set.
      metadata: stored with the prepared data set (JSON types).
    """

    examples: Mapping[str, Callable[[], Iterator[dict[str, Any]]]]
    counts: Mapping[str, Mapping[str, int]]
    found: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    complete: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)


class ManualBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # pyright: ignore
    """Reads and checks all of the user's files, then lets TFDS write them as array_record.

    Args (besides those of TFDS):
      allow_counts: accept files with other numbers of examples than published, as public copies often have;
        recorded in the metadata as `complete: false`.
    """

    # Nothing is downloaded. TFDS's own property looks for checksums and needs importlib_resources for that, which it
    # does not install.
    url_infos = None  # pyright: ignore

    def __init__(self, *, allow_counts: bool = False, **kwargs: Any):
        self.allow_counts = allow_counts
        self.contents: Contents | None = None
        super().__init__(file_format="array_record", **kwargs)
        self._original_state = {**self._original_state, "allow_counts": allow_counts}  # for pickling

    @abc.abstractmethod
    def read(self, manual_dir: epath.Path) -> Contents:
        """Reads and checks the original files.

        Raises:
          UserError: with the file, the place in it, and what to do.
        """

    def download_and_prepare(self, *, download_dir=None, download_config=None, **kwargs: Any) -> None:
        """Builds the data set unless it is prepared. For bad files it raises `UserError` and writes nothing."""
        config = download_config or tfds.download.DownloadConfig()
        if not is_prepared(self) or config.download_mode.overwrite_dataset:
            folder = config.manual_dir or epath.Path(download_dir or self.data_dir_root / "downloads") / "manual"
            # TFDS creates folders before it asks for examples: so read first.
            self.contents = self.read(_existing_folder(folder, self.name))
            for warning in self.contents.warnings:
                logging.warning("%s", warning)
            self.write_ahead()
        super().download_and_prepare(download_dir=download_dir, download_config=config, **kwargs)

    def write_ahead(self) -> None:
        """Does what may take long or fail, before TFDS creates its folder; here: nothing."""

    def as_data_source(self, *args: Any, **kwargs: Any):
        """As in TFDS; if the data set is not prepared, the error says what to run."""
        require_prepared(self)
        return super().as_data_source(*args, **kwargs)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # download_and_prepare has read the files
        if self.contents is None:
            raise RuntimeError("call download_and_prepare, which reads the files first")
        contents = self.contents
        metadata = self.info.metadata
        assert metadata is not None  # every _info sets a MetadataDict
        metadata.update(
            complete=contents.complete,
            counts={split: dict(classes) for split, classes in contents.counts.items()},
            warnings=list(contents.warnings),
            **contents.metadata,
        )
        return {split: self._generate_examples(split) for split in contents.examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        assert self.contents is not None
        total = sum(self.contents.counts[split].values())
        yield from enumerate(
            tqdm(self.contents.examples[split](), f"writing {split}", total, unit=" examples", disable=None)
        )

    # TFDS prints "Downloading" and "Unknown size" here, though nothing is downloaded.
    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...


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
    if isinstance(builder, ManualBuilder):
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


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes a uint8 `[H, W]` or `[H, W, 1 | 3]` image.

    It returns an open file, because `tfds.features.Image` would import TensorFlow to encode an array.
    """
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


def _existing_folder(folder: os.PathLike | str, name: str) -> epath.Path:
    path = epath.Path(local(os.fspath(folder), "--manual_dir"))
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder with {name}'s original files as --manual_dir")
    if not path.is_dir():
        raise UserError(f"{path} is a file; give the folder it lies in as --manual_dir")
    return path
