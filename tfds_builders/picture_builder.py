"""The base of builders of picture files: it checks a listing first, then reads and stores every picture once."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.splits import SplitDict

from fer_jax.errors import UserError, nearest
from fer_jax.faces.detection import best_detector
from fer_jax.faces.pictures import copied
from tfds_builders.layout import Absent
from tfds_builders.listing import Item, Listing, check_counts, class_counts, one_sided, shared_files, unusual_counts
from tfds_builders.look_alikes import equal_groups
from tfds_builders.manual import ManualBuilder
from tfds_builders.problems import Problems, in_full, listed
from tfds_builders.shards import Shards, size_and_time, write_splits

FEW_ALIKE = 3  # equal notes up to this number are shown one by one
KINDS_OF_NOTES = 100  # in the metadata
PARTIAL = ".partial"  # beside the finished folder: shards of a build that is running or was killed


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may choose when a data set is prepared; builders add fields.

    Attributes:
        size: side of the stored pictures if they are cropped or resized; 0 if they are stored as they are.
    """

    size: int = 0


class OptionsConfig(tfds.core.BuilderConfig):
    """A named set of options."""

    def __init__(self, *, options: Options, **kwargs: Any):
        super().__init__(**kwargs)
        self.options = options


class PictureBuilder(ManualBuilder, skip_registration=True):  # pyright: ignore
    """Lists the user's files, checks the list, then stores every example in several processes.

    A subclass names its `VARIANTS` (the first is the default) and `fields`, lists the files in `list_files`, and
    defines `encode` unless it stores pictures whole. `jobs` is the number of processes, 0 for all cores.

    Args (besides those of ManualBuilder):
      allow_missing: how many examples may be missing or unreadable; the metadata record them as `missing`.
      detector: of faces, for the processes of a build, which chooses it once; recorded in the metadata.
    """

    VERSION: ClassVar[tfds.core.Version] = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    HOMEPAGE: ClassVar[str | None] = None
    VARIANTS: ClassVar[Mapping[str, Options]] = {"default": Options()}
    SUPERVISED_KEYS: ClassVar[tuple[str, str] | None] = ("image", "label")  # as TFDS's `as_supervised` returns them
    SQUARE: ClassVar[str] = "its README names the variant or option that crops faces"  # how to store square pictures
    CHANNELS: ClassVar[int] = 3
    PICTURES_PER_EXAMPLE: ClassVar[int] = (
        1  # roughly; more for clips, so that few of them are divided among several processes
    )
    jobs = 0
    _problems: Problems
    _shards: Mapping[str, Shards]
    _digests: Mapping[str, Sequence[str]]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)  # gives the class its name
        if "BUILDER_CONFIGS" not in cls.__dict__:
            cls.BUILDER_CONFIGS = [cls.named_config(name, {}) for name in cls.VARIANTS]

    def __init__(self, *, allow_missing: int = 0, detector: Any = None, **kwargs: Any):
        self.allow_missing, self.detector = allow_missing, detector
        super().__init__(**kwargs)
        self._original_state = {**self._original_state, "allow_missing": allow_missing}

    @classmethod
    def make(cls, variant: str, data_dir: str | None, options: Mapping[str, Any]) -> PictureBuilder:
        """Returns the builder of a variant with options; `allow_counts` and `allow_missing` are among them."""
        changes = dict(options)
        allowed = {name: changes.pop(name) for name in ("allow_counts", "allow_missing") if name in changes}
        config = cls.named_config(variant or next(iter(cls.VARIANTS)), changes)
        named = [c.name for c in cls.BUILDER_CONFIGS]
        # TFDS accepts a configuration of its list only by name.
        builder = cls(config=config.name if config.name in named else config, data_dir=data_dir, **allowed)
        builder.check_options(changes)
        return builder

    @classmethod
    def named_config(cls, name: str, changes: Mapping[str, Any]) -> OptionsConfig:
        """Returns the configuration of a variant with some options replaced, which its name shows.

        Raises:
            UserError: for an unknown variant or option, and an option of another type.
        """
        if name not in cls.VARIANTS:
            raise UserError(f"{cls.name} has no variant '{name}': {nearest(name, cls.VARIANTS)}")
        base = cls.VARIANTS[name]
        fields = [field.name for field in dataclasses.fields(base)]
        for field, value in changes.items():
            if field not in fields:
                raise UserError(f"{cls.name} has no option '{field}': {nearest(field, fields)}")
            if type(value) is not type(getattr(base, field)) and not (
                isinstance(getattr(base, field), float) and type(value) is int
            ):
                wanted = type(getattr(base, field)).__name__
                raise UserError(f"{cls.name}: option {field}={value!r} must be of type {wanted}")
        options = dataclasses.replace(base, **changes)
        # The last part of a path, such as that of a detector's weights: the name becomes a folder's.
        changed = {f: pathlib.PurePath(str(getattr(options, f))).name for f in fields}
        parts = [f"{f}{value}" for f, value in changed.items() if getattr(options, f) != getattr(base, f)]
        return OptionsConfig(name="-".join([name, *parts]), version=str(cls.VERSION), options=options)

    def check_options(self, given: Collection[str]) -> None:
        """Raises for invalid options; `given` are the names of those that the user gave."""

    @abc.abstractmethod
    def fields(self) -> dict[str, Any]:
        """Returns the features of an example by name, `label` and `image` or `frames` among them."""

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(self.fields()),
            supervised_keys=self.SUPERVISED_KEYS,
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    @property
    def options(self) -> Any:
        """The options of this configuration."""
        config = self.builder_config
        assert isinstance(config, OptionsConfig)
        return config.options

    @property
    def features(self) -> Any:
        """The features by name."""
        return self.info.features

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels, in order."""
        return tuple(self.features["label"].names)

    @abc.abstractmethod
    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        """Lists the examples; adds problems of single files to `problems`, raises others."""

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        """Returns the fields of an example and notes on conversions; by default one picture, stored whole."""
        picture = copied(item.files[0], self.CHANNELS, self.picture_size())
        return {"image": picture.file(), "label": item.label, **item.fields}, picture.notes

    def searches_faces(self) -> bool:
        """Whether `encode` uses `detector`."""
        return getattr(self.options, "crop", "") == "faces"

    def crop(self) -> dict[str, Any]:
        """Returns how faces were cropped, so that a model crops photos alike: `by` 'points' or 'box', with a `margin`.

        {} where the files are faces that others have cropped, or whole pictures.
        """
        if self.searches_faces():
            return {"by": "points", "margin": self.options.margin}
        return {"by": "box", "margin": self.options.margin} if getattr(self.options, "crop", "") == "boxes" else {}

    def beside(self, item: Item) -> Sequence[str]:
        """Returns the files that `encode` reads besides the item's own, so that changes are noticed."""
        del item
        return ()

    def example_name(self, where: str) -> str:
        """Returns the name in the metadata of the example at a path; by default that of its file."""
        return pathlib.PurePath(where).name

    def picture_size(self) -> tuple[int, int] | None:
        """(height, width) of stored pictures, None if they differ."""
        shape = self.features["image" if "image" in self.features else "frames"].shape[-3:]
        return None if None in shape else (shape[0], shape[1])

    def _stretched(self) -> tuple[str, ...]:
        """Returns a warning if the stored pictures are not square, because training resizes them to squares."""
        height, width = self.picture_size() or (1, 1)
        if height == width:
            return ()
        line = f"pictures of {width}x{height} pixels are not square, and training stretches them to squares"
        return (f"{line}: {self.SQUARE}",)

    def serialize(self, example: Mapping[str, Any]) -> bytes:
        return self.features.serialize_example(dict(example))

    def read(self, manual_dir: epath.Path) -> Listing:  # pyright: ignore
        self._problems = problems = Problems(f"{self.name} in {manual_dir}")
        try:
            listing = self.list_files(manual_dir, problems)
        except Absent as error:
            raise UserError(f"{error} (layout: tfds_builders/{self.name}/README.md)") from None
        _check_names(listing, problems)
        if not any(listing.items.values()) and not (problems.mistakes or problems.gaps):
            raise UserError(f"{manual_dir} holds no picture of {self.name}: {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        problems.raise_if_any(self.allow_missing)
        if self.searches_faces():
            self.detector = self._original_state["detector"] = best_detector(self.options.yunet)
        counts = listing.counts(self.classes)
        unusual = check_counts(self.name, counts, listing.expected, self.allow_counts, len(problems.gaps))
        more = (*unusual, *one_sided(counts), *shared_files(listing.items), *self._stretched())
        return dataclasses.replace(listing, warnings=(*listing.warnings, *more))

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As in `ManualBuilder`; the shards of a build are deleted when the data set is complete."""
        super().download_and_prepare(**kwargs)
        shutil.rmtree(self.partial(), ignore_errors=True)

    def write_ahead(self) -> None:
        """Reads every picture and writes all shards, before TFDS creates its folder."""
        listing = self.contents
        assert isinstance(listing, Listing)
        settings = [self.name, str(self.version), self.builder_config_name, self.options, str(self.detector)]
        options = dataclasses.asdict(self.options).values()
        settings += [size_and_time(value) for value in options if isinstance(value, str) and os.path.isfile(value)]
        written = write_splits(self, listing.items, self.partial(), self.jobs, repr(settings))
        problems = self._problems
        problems.gaps += [gap for shards in written.values() for _, shard in shards for gap in shard.gaps]
        problems.raise_if_any(self.allow_missing)
        self._digests = {split: [d for _, shard in shards for d in shard.digests] for split, shards in written.items()}
        self._shards = {split: [one for one in shards if one[1].labels] for split, shards in written.items()}
        if not any(self._shards.values()):
            missing = listed(problems.gaps)
            raise UserError(f"{problems.name}: all examples are missing; fix them\n{missing}")

    def partial(self) -> pathlib.Path:
        """Returns the folder of the shards of a build that is not complete."""
        return pathlib.Path(self.data_path).parent / f".{self.version}{PARTIAL}"

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Links the shards into the folder that TFDS makes."""
        listing = self.contents
        assert isinstance(listing, Listing), "call download_and_prepare, which lists the files first"
        splits, counts = [], {}
        for split, shards in self._shards.items():
            if not shards:
                continue
            template = self._get_filename_template(split_name=split)
            for number, (path, _) in enumerate(shards):
                _link(path, template.sharded_filepath(shard_index=number, num_shards=len(shards)))
            labels = [label for _, shard in shards for label in shard.labels]
            counts[split] = class_counts(labels, self.classes)
            splits.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[len(shard.labels) for _, shard in shards],
                    num_bytes=sum(shard.num_bytes for _, shard in shards),
                    filename_template=template,
                )
            )
        self.info.set_splits(SplitDict(splits))
        self._finish(listing, counts)

    def notes(self) -> list[str]:
        """Returns the lines about pictures that were converted."""
        return [note for shards in self._shards.values() for _, shard in shards for note in shard.notes]

    def _repeated(self, listing: Listing) -> list[str]:
        """Returns lines about examples that are stored more than once."""
        stored = [
            (split, item.label, item.name, digest)
            for split, items in listing.items.items()
            for item, digest in zip(items, self._digests[split], strict=True)
            if digest
        ]
        groups = [[stored[i] for i in group] for group in equal_groups([digest for *_, digest in stored])]
        lines = []
        for place, what in ((3, "more than once"), (0, "in several splits"), (1, "with different labels")):
            some = [group for group in groups if place == 3 or len({one[place] for one in group}) > 1]
            if some:
                first = some[0][0]
                other = next(one for one in some[0][1:] if place == 3 or one[place] != first[place])
                lines.append(f"{len(some):,} pictures or clips are stored {what}, such as {first[2]} and {other[2]}")
        return lines

    def _finish(self, listing: Listing, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Completes the metadata and the lines that `prepare` prints."""
        gaps, unlisted = self._problems.gaps, self._problems.unlisted
        notes = self.notes()
        warnings = list(listing.warnings)
        warnings += self._repeated(listing)
        for lines, what in (
            (_summary(notes), "notes on single files"),
            (gaps, "examples missing, as --allow_missing allows"),
            (unlisted, "files left that no list names, as --allow_missing allows"),
        ):
            if lines:
                warnings.append(f"{len(lines)} {what}:\n{listed(lines)}{in_full(lines)}")
        self.contents = dataclasses.replace(listing, warnings=tuple(warnings))  # pyright: ignore
        metadata = self.info.metadata
        assert metadata is not None  # every _info sets a MetadataDict
        metadata.update(
            complete=not gaps and not unusual_counts(counts, listing.expected),
            counts={split: dict(classes) for split, classes in counts.items()},
            published={split: dict(classes) for split, classes in listing.expected.items()},
            missing=[self.example_name(gap.where) for gap in gaps],
            unlisted=[pathlib.PurePath(gap.where).name for gap in unlisted],
            allow_missing=self.allow_missing,
            notes=dict(Counter(note.rpartition(": ")[2] for note in notes).most_common(KINDS_OF_NOTES)),
            warnings=list(listing.warnings),
            options=dataclasses.asdict(self.options),
            crop=self.crop(),
            **({"detector": str(self.detector)} if self.detector else {}),
            classes=list(self.classes),
            **listing.metadata,
        )


def _summary(notes: Sequence[str]) -> list[str]:
    """Returns the lines 'file: note'; one line for all files that share a note if they are many."""
    files: dict[str, list[str]] = {}
    for line in notes:
        file, _, note = line.rpartition(": ")
        files.setdefault(note, []).append(file)
    lines = []
    for note, some in files.items():
        few = [f"{file}: {note}" for file in some]
        lines += few if len(few) <= FEW_ALIKE else [f"{len(some):,} files, the first {some[0]}: {note}"]
    return lines


def _check_names(listing: Listing, problems: Problems) -> None:
    """Adds file names that are not UTF-8 to the problems, because they cannot be stored."""
    for items in listing.items.values():
        for item in items:
            for text in (*item.files, *(value for value in item.fields.values() if isinstance(value, str))):
                if not text.isascii() and text.encode(errors="replace").decode() != text:
                    shown = text.encode(errors="surrogateescape").decode(errors="replace")
                    problems.mistake(
                        shown, "has a name that is not UTF-8: unpack its archive again and give its encoding"
                    )


def _link(shard: pathlib.Path, place: Any) -> None:
    """Links the file at a second place, or copies it if the disk has no links."""
    try:
        os.link(shard, place)
    except OSError:
        shutil.copyfile(shard, place)


def picture_feature(size: tuple[int, int] | None, channels: int) -> tfds.features.Image:
    """The feature of stored pictures, of one size or of any."""
    height, width = size or (None, None)
    return tfds.features.Image(shape=(height, width, channels), dtype=np.uint8)
