"""A split of a prepared data set, decoded once into RAM and readable at any index."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fer_jax.data.labelled import attach_targets
from fer_jax.errors import UserError, nearest
from tfds_builders import registry
from tfds_builders.manual import ManualBuilder, is_prepared, require_prepared
from tfds_builders.preparation import prepare

FIELDS_LEFT_ON_DISK = frozenset({"occlusion_mask"})  # ground truth for analyses, never fed to a network


@dataclasses.dataclass(frozen=True)
class Source:
    """Examples in RAM.

    Attributes:
        name: of the data set, e.g. 'synthetic_faces/basic'.
        split: of the data set.
        classes: emotion names; `label` and the columns of `target` are in this order.
        arrays: by field, the first dimension is the example: `image` uint8 [N, H, W, C], `label` int32 [N],
            `target` float32 [N, classes], `index` int32 [N] (the position in this source), and what else the data
            set has (`landmarks` float32 [N, 68, 2], `votes` [N, 10], `subject` [N], ...).
        rows: int [N], the place of each example in the split as it is stored.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.arrays["label"])

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays.values())

    def select(self, rows: np.ndarray) -> Source:
        """Returns the examples at `rows`, renumbered."""
        arrays = {k: v[rows] for k, v in self.arrays.items()}
        arrays["index"] = np.arange(len(rows), dtype=np.int32)
        return dataclasses.replace(self, arrays=arrays, rows=self.rows[rows])

    def class_counts(self) -> np.ndarray:
        return np.bincount(self.arrays["label"], minlength=len(self.classes))


def load(config: Any, split: str, *, training: bool) -> Source:
    """Loads a split as `config.data` describes it.

    Args:
        config: the `data` part of an experiment's config.
        split: name of the split.
        training: whether these examples train (then `exclude` and the training target rule apply; evaluation
            always uses the majority, as FER+ does).

    Raises:
        UserError: for an unknown data set, split, rule or flag, and where the data set is not prepared.
    """
    builder = prepared_builder(config)
    check_split(builder, config.dataset, split)
    if "image" not in builder.info.features:
        raise UserError(f"{config.dataset} has no single images, which this harness trains on: name another data set")
    arrays = dict(_decoded(builder, split))
    arrays["row"] = np.arange(len(arrays["image"]))
    classes = tuple(builder.info.features["label"].names) if "label" in builder.info.features else ()
    arrays, classes = attach_targets(arrays, classes, rule=config.target, votes=config.votes, training=training)
    if training:
        for flag in config.exclude:
            if flag not in arrays or arrays[flag].dtype != bool:
                flags = [k for k, v in arrays.items() if v.dtype == bool]
                raise UserError(f"config.data.exclude: {config.dataset} has no flag '{flag}'; {nearest(flag, flags)}")
        keep = np.ones(len(arrays["label"]), bool)
        for flag in config.exclude:
            keep &= ~arrays[flag]
        arrays = {k: v[keep] for k, v in arrays.items()}
    rows = arrays.pop("row")
    arrays["index"] = np.arange(len(rows), dtype=np.int32)
    return Source(config.dataset, split, classes, arrays, rows)


def check_split(builder: Any, dataset: str, split: str) -> None:
    """Refuses a split that the data set does not have."""
    if split not in builder.info.splits:
        raise UserError(f"{dataset} has no split '{split}'; {nearest(split, builder.info.splits)}")


def split_off(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Divides a source in (training, held-out): by whole subjects where they are known, else stratified by class."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(source), bool)
    if fraction > 0 and "subject" in source.arrays:
        subject = source.arrays["subject"]
        order = rng.permutation(np.unique(subject))
        held = np.isin(subject, order[: max(1, round(fraction * len(order)))])
    elif fraction > 0:
        for label in np.unique(source.arrays["label"]):
            rows = rng.permutation(np.flatnonzero(source.arrays["label"] == label))
            held[rows[: round(fraction * len(rows))]] = True
    if not held.any() or held.all():
        raise UserError(
            f"config.data.holdout_fraction={fraction} leaves nothing to "
            f"{'validate' if not held.any() else 'train'} on, out of {len(source)} examples of {source.name}"
        )
    return source.select(np.flatnonzero(~held)), source.select(np.flatnonzero(held))


def prepared_builder(config: Any) -> Any:
    """Returns the TFDS builder of `config.dataset`, prepared; prepares it where that needs no files of the user."""
    data_dir = os.path.expanduser(config.data_dir) or None
    builder = registry.make_builder(config.dataset, data_dir=data_dir, **dict(config.builder))
    if not is_prepared(builder):
        manual_dir = os.path.expanduser(config.manual_dir) or None
        if isinstance(builder, ManualBuilder) and manual_dir is None:
            require_prepared(builder)
        print(f"preparing {config.dataset} (once)", flush=True)
        prepare(builder, manual_dir=manual_dir)
        builder = registry.make_builder(config.dataset, data_dir=data_dir, **dict(config.builder))
    return builder


def _decoded(builder: Any, split: str) -> Mapping[str, np.ndarray]:
    """Returns all examples of a split as arrays, kept decoded beside the data set from the second time on."""
    folder = pathlib.Path(builder.data_path) / "decoded" / split
    records = _sizes(builder.data_path, "*record*")
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError):  # missing, or not whole: it is made anew
        stamp = json.loads((folder / "stamp.json").read_text())
        if stamp["records"] == records and stamp["arrays"] == _sizes(folder, "*.npy"):
            return {f.stem: np.load(f) for f in sorted(folder.glob("*.npy"))}
    arrays = _decode(builder, split)
    with contextlib.suppress(OSError):  # a read-only or full disk costs the next run its decoding, nothing else
        _store(folder, arrays, records)
    return arrays


def _sizes(folder: str | os.PathLike[str], pattern: str) -> dict[str, int]:
    return {f.name: f.stat().st_size for f in sorted(pathlib.Path(folder).glob(pattern))}


def _decode(builder: Any, split: str) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds

    skipped = FIELDS_LEFT_ON_DISK & set(builder.info.features)
    try:
        source = builder.as_data_source(split, decoders={k: tfds.decode.SkipDecoding() for k in skipped} or None)
        examples: Sequence[Mapping[str, Any]] = source.__getitems__(range(len(source)))
    except Exception as error:
        raise UserError(
            f"{builder.info.name}, split {split}, under {builder.data_path} cannot be read "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}): "
            "it is damaged or another version wrote it; delete that folder and prepare it again"
        ) from error
    arrays = {}
    for key in set(examples[0]) - skipped:
        values = np.stack([np.asarray(example[key]) for example in examples])
        if values.dtype == object or values.dtype.kind in "SU":
            continue  # names of files and such serve messages, not networks
        arrays[key] = values.astype(np.int32) if values.dtype == np.int64 else values
    return arrays


def _store(folder: pathlib.Path, arrays: Mapping[str, np.ndarray], records: Mapping[str, int]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for key, values in arrays.items():
            np.save(temporary / f"{key}.npy", values)
        stamp = {"records": records, "arrays": _sizes(temporary, "*.npy")}
        (temporary / "stamp.json").write_text(json.dumps(stamp))
        os.rename(temporary, folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
