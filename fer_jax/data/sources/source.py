"""A split of a prepared data set, decoded once into RAM and readable at any index."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax.data.sources import clips
from fer_jax.data.sources.decoding import decoded, texts
from fer_jax.data.sources.folds import check_number, divide, rows_by_class
from fer_jax.data.sources.on_disk import LazyPictures, select
from fer_jax.data.sources.points import attach_points, stored_landmarks
from fer_jax.data.sources.records import data_digest, place_of, readable
from fer_jax.data.targets.labeled import attach_targets, with_neutral, without_classes
from fer_jax.errors import UserError, nearest
from fer_jax.labels import AFFECT
from fer_jax.storage import local


@dataclasses.dataclass(frozen=True)
class Source:
    """Examples in RAM.

    Attributes:
        name: of the data set, e.g. 'synthetic_faces/basic'.
        split: of the data set.
        classes: emotion names; `label` and the columns of `target` are in this order.
        arrays: by field, with one row per example: `image` uint8 [N, H, W, C], `label` int32 [N], `target` float32
            [N, classes] (up to `labels.MANY_CLASSES`), `index` int32 [N] (the position in this source), and further
            fields of the data set (`landmarks` float32 [N, 68, 2], `votes` [N, 10], `subject` [N], ...) or of the
            config (`points` float32 [N, P, 2]). Clips have `start` and `length` int32 [N] instead of `image`.
        rows: int [N], the place of each example in the stored split.
        frames: of clips, by field, one after the other: `frames` uint8 [F, H, W, C], `frame_mask` bool [F] (false
            without a face), `points` float32 [F, P, 2] if the config asks for them, ... Clip i is rows start[i] ..
            start[i] + length[i] - 1. All selections share them.
        folds: number of folds in the field `fold`, int32 [N] from 0; 0 where the split is not divided.
        data_digest: of the stored split (see `records.data_digest`).
    """

    name: str
    split: str
    classes: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    rows: np.ndarray
    frames: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    folds: int = 0
    data_digest: str = ""

    def __len__(self) -> int:
        return len(self.arrays["label"])

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in (*self.arrays.values(), *self.frames.values()))

    @property
    def on_disk(self) -> bool:
        """Whether the pictures stay on disk and are decoded when they are asked for."""
        return isinstance(self.frames["frames"] if self.frames else self.arrays["image"], LazyPictures)

    @property
    def unit(self) -> str:
        """What an example is: 'clips' or 'images'."""
        return "clips" if self.frames else "images"

    @property
    def affect(self) -> np.ndarray | None:
        """Annotated valence and arousal [N, 2], NaN where an example has none; None where the data set has none."""
        if not set(AFFECT) <= set(self.arrays):
            return None
        values = np.stack([self.arrays[name] for name in AFFECT], axis=1)
        return np.where(np.abs(values) <= 1, values, np.nan)

    @property
    def shown_frames(self) -> dict[str, np.ndarray]:
        """What a model may see of each frame: `frames` and, if there are any, `points`."""
        return {name: self.frames[name] for name in ("frames", "points") if name in self.frames}

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image or frame."""
        return (self.frames["frames"] if self.frames else self.arrays["image"]).shape[1:]

    def pictures(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns one image per example (of those at `rows`), uint8 [n, H, W, C]: of a clip its middle face."""
        rows = np.arange(len(self)) if rows is None else rows
        if not self.frames:
            return self.arrays["image"][rows]
        place = clips.middle_faces(self.arrays, self.frames["frame_mask"])[rows]
        shown = np.zeros((len(rows), *self.picture_shape), np.uint8)
        shown[place >= 0] = self.frames["frames"][place[place >= 0]]
        return shown

    def fields(self) -> dict[str, np.ndarray]:
        """Returns all fields; those per frame hold the frames of these examples, one after the other."""
        places = clips.frame_rows(self.arrays["start"], self.arrays["length"]) if self.frames else None
        return dict(self.arrays) | {name: values[places] for name, values in self.frames.items()}

    def frame_counts(self) -> dict[str, int]:
        """Returns the numbers of frames, of frames without a face, and of clips without any face."""
        mask, length = self.frames["frame_mask"], self.arrays["length"]
        _, faces = clips.face_counts(self.arrays["start"], length, mask)
        without = int(length.sum() - faces.sum())
        return {"frames": int(length.sum()), "without_face": without, "clips_without_face": int((faces == 0).sum())}

    def last_faces(self, most: int, neutral: int = 0) -> Source:
        """Returns the last `most` faces of each clip as images; for `MIDDLE_APEX`, the middle faces.

        With `neutral` above 0 that many of its first faces are added, labeled neutral, unless they are among the last
        ones (see `with_neutral`). Fields of the clip (subject, fold, code) are repeated for its images, and
        `clip_frame` int32 [n] is the place of each image in its clip, from 0.
        """
        middle = self.name.partition("/")[0] in clips.MIDDLE_APEX
        owner, place, opening = clips.end_faces(self.arrays, self.frames["frame_mask"], most, neutral, middle)
        if neutral and not opening.any():
            raise UserError(
                f"config.data.neutral_frames={neutral}: no clip of {self.name}, split {self.split}, has more than the "
                f"config.data.last_frames={most} faces that show its expression; set it to 0"
            )
        arrays = {k: v[owner] for k, v in self.arrays.items() if k not in ("start", "length")}
        arrays |= {k: v[place] for k, v in self.frames.items() if k not in ("frames", "frame_mask")}
        arrays |= {"image": select(self.frames["frames"], place), "index": np.arange(len(owner), dtype=np.int32)}
        arrays["clip_frame"] = (place - self.arrays["start"][owner]).astype(np.int32)
        classes = self.classes
        if neutral:
            arrays, classes = with_neutral(arrays, classes, opening)
        return dataclasses.replace(self, classes=classes, arrays=arrays, rows=self.rows[owner], frames={})

    def select(self, rows: np.ndarray) -> Source:
        """Returns the examples at `rows`, renumbered."""
        arrays = {k: select(v, rows) for k, v in self.arrays.items()}
        arrays["index"] = np.arange(len(rows), dtype=np.int32)
        return dataclasses.replace(self, arrays=arrays, rows=self.rows[rows])

    def targets(self) -> np.ndarray:
        """Returns the target distributions, float32 [N, C]: of very many classes, those of the labels."""
        if "target" in self.arrays:
            return self.arrays["target"]
        return np.eye(len(self.classes), dtype=np.float32)[self.arrays["label"]]

    def class_counts(self) -> np.ndarray:
        """Returns the number of examples of each class, int [C]."""
        return np.bincount(self.arrays["label"], minlength=len(self.classes))


def load(config: Any, split: str, *, training: bool) -> Source:
    """Loads a split as `config.data` describes it.

    Args:
        config: the `data` part of an experiment's config.
        split: name of the split.
        training: whether to train on these examples. Then `exclude` and the target rule apply; evaluation always uses
            the majority of votes, as FER+ does.

    Raises:
        UserError: for an unknown data set, split, rule or flag, and if the data set is not prepared.
    """
    builder = prepared_builder(config)
    check_split(builder, config.dataset, split)
    if not {"image", "frames"} & set(builder.info.features):
        raise UserError(f"{config.dataset} has neither images nor clips: name another data set")
    arrays, frames, digest = decoded(builder, split, config.path == "disk"), {}, data_digest(builder, split)
    if config.points and "landmarks" not in arrays:
        arrays |= stored_landmarks(builder.data_path, split, digest)
    if "frames" in arrays:
        arrays, frames = clips.separate(arrays)
        if not arrays["length"].any():
            raise UserError(f"the {len(arrays['length'])} clips of {config.dataset}, split {split}, have no frames")
    elif config.last_frames:
        raise UserError(f"config.data.last_frames={config.last_frames}: {config.dataset} has no clips; set it to 0")
    arrays = {k: v for k, v in arrays.items() if k not in AFFECT or (np.abs(v) <= 1).any()}  # if any is annotated
    pictures = arrays.pop("image", None)  # selected last, because they may lie on disk
    arrays["row"] = np.arange(len(arrays["length"] if pictures is None else pictures))
    folds = 0
    if config.folds and split == config.train_split:  # before examples leave, so that nobody changes folds
        arrays["fold"] = divide(arrays, config.folds, config.dataset)
        folds = int(arrays["fold"].max()) + 1
    classes = tuple(builder.info.features["label"].names) if "label" in builder.info.features else ()
    arrays, classes = attach_targets(arrays, classes, rule=config.target, votes=config.votes, training=training)
    if config.drop_classes:
        arrays, classes = without_classes(arrays, classes, config.drop_classes)
    if training:
        arrays = _without(arrays, config.exclude, config.dataset)
    rows = arrays.pop("row")
    if pictures is not None:
        arrays["image"] = pictures if len(rows) == len(pictures) else select(pictures, rows)
    arrays["index"] = np.arange(len(rows), dtype=np.int32)
    source = Source(config.dataset, split, classes, arrays, rows, frames, folds, digest)
    source = source.last_faces(config.last_frames, config.neutral_frames) if config.last_frames else source
    return with_points(source, config.points) if config.points else source


def with_points(source: Source, kind: str) -> Source:
    """Adds the field `points` to images, or to the frames of clips; see `attach_points`."""
    names = {"kind": kind, "dataset": source.name, "split": source.split}
    if not source.frames:
        return dataclasses.replace(source, arrays=attach_points(source.arrays, **names))
    fields = {"image" if name == "frames" else name: values for name, values in source.frames.items()}
    if "landmarks" in fields:
        fields["landmarks"] = np.where(fields["frame_mask"][:, None, None], fields["landmarks"], np.float32(np.nan))
    points = attach_points(fields, **names)["points"]
    return dataclasses.replace(source, frames={**source.frames, "points": points})


def _without(arrays: Mapping[str, np.ndarray], flags: tuple[str, ...], dataset: str) -> dict[str, np.ndarray]:
    """Drops the examples that any of the flags marks."""
    keep = np.ones(len(arrays["label"]), bool)
    for flag in flags:
        known = [name for name, values in arrays.items() if values.dtype == bool]
        if flag not in known:
            raise UserError(f"config.data.exclude: {dataset} has no flag '{flag}'; {nearest(flag, known)}")
        keep &= ~arrays[flag]
    return {name: values[keep] for name, values in arrays.items()}


def check_split(builder: Any, dataset: str, split: str) -> None:
    """Raises if the data set has no such split."""
    if split not in builder.info.splits:
        raise UserError(f"{dataset} has no split '{split}'; {nearest(split, builder.info.splits)}")


def take_fold(source: Source, number: int) -> tuple[Source, Source]:
    """Divides a source into (the other folds, fold `number`), which counts from 1."""
    check_number(number, source.folds)
    inside = source.arrays["fold"] == number - 1
    if not inside.any() or inside.all():
        raise UserError(
            f"config.fold={number}: {int(inside.sum())} of the {len(source)} examples of {source.name}, split "
            f"{source.split}, are in fold {number} of {source.folds}: nothing to "
            f"{'train on' if inside.any() else 'test'}"
        )
    others = source.select(np.flatnonzero(~inside))
    fold = source.select(np.flatnonzero(inside))
    return (
        dataclasses.replace(others, split=f"{source.split} without fold {number}"),
        dataclasses.replace(fold, split=f"fold {number} of {source.folds}"),
    )


def split_off(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Divides a source into (training, held-out): by whole subjects where they are known, else stratified by class.

    Images taken from one clip stay together either way.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(source), bool)
    if fraction > 0 and "subject" in source.arrays:
        subject = source.arrays["subject"]
        order = rng.permutation(np.unique(subject))
        held = np.isin(subject, order[: max(1, round(fraction * len(order)))])
    elif fraction > 0:
        rows, last = np.unique(source.rows[::-1], return_index=True)
        labels = source.arrays["label"][::-1][last]  # the label of a clip's last image: the first may be neutral
        chosen = [rng.permutation(rows[members]) for members in rows_by_class(labels)]
        held = np.isin(source.rows, np.concatenate([some[: round(fraction * len(some))] for some in chosen]))
    if not held.any() or held.all():
        raise UserError(
            f"config.data.holdout_fraction={fraction} leaves nothing to "
            f"{'validate' if not held.any() else 'train'} on, out of {len(source)} examples of {source.name}"
        )
    return source.select(np.flatnonzero(~held)), source.select(np.flatnonzero(held))


def prepared_builder(config: Any) -> Any:
    """Returns the TFDS builder of `config.dataset`; prepares the data set first if that needs no files of the user."""
    registry = importlib.import_module("tfds_builders.registry")
    prepared = importlib.import_module("tfds_builders.prepared")
    data_dir = local(config.data_dir, "config.data.data_dir") or None
    builder = registry.make_builder(config.dataset, data_dir=data_dir, **dict(config.builder))
    if not prepared.is_prepared(builder):
        manual_dir = local(config.manual_dir, "config.data.manual_dir") or None
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
            prepared.require_prepared(builder)
        print(f"preparing {config.dataset} (once)", flush=True)
        importlib.import_module("tfds_builders.preparation").prepare(builder, manual_dir=manual_dir)
        builder = registry.make_builder(config.dataset, data_dir=data_dir, **dict(config.builder))
    return builder


def facts(config: Any) -> dict[str, Any]:
    """Returns `data` for results.json: how a data set of the user's files was prepared; {} for synthetic faces.

    It holds the version, whether it is `complete`, how many examples are `missing`, its `options`, how its faces were
    cropped (`crop`, see `PictureBuilder.crop`) and the `detector` that found them.
    """
    builder = prepared_builder(config)
    known = dict(builder.info.metadata or {})
    if "complete" not in known:
        return {}
    stored = {name: known[name] for name in ("complete", "options", "crop", "detector") if name in known}
    return {"data": {"version": str(builder.version), "missing": len(known.get("missing", ())), **stored}}


def example_names(config: Any, source: Source) -> list[str]:
    """Returns the file name of each example of a source, or 'row 12' if the data set does not keep its `name`s."""
    builder = prepared_builder(config)
    if "name" not in builder.info.features:
        return [f"row {row:,}" for row in source.rows]
    names = image_names(config, config.train_split if source.folds else source.split)
    return [names[row] for row in source.rows]


def image_names(config: Any, split: str) -> list[str]:
    """Returns the file names of a split's images in stored order.

    If the data set does not keep its `name`s, the first is `<split>_00001`, as RAF-DB counts.
    """
    builder = prepared_builder(config)
    if "name" not in builder.info.features:
        return [f"{split}_{number:05d}" for number in range(1, builder.info.splits[split].num_examples + 1)]
    with readable(place_of(builder, split)):
        return texts(builder, split, "name")
