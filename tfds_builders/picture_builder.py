"""The base of builders of picture files: a listing is checked first, then every picture is read once and stored."""

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
from tfds_builders.listing import Item, Listing, check_counts, class_counts, one_sided, unusual_counts
from tfds_builders.manual import ManualBuilder
from tfds_builders.pictures import copied
from tfds_builders.problems import Problems, in_full, listed
from tfds_builders.shards import Shards, size_and_time, write_splits

FEW_ALIKE = 3  # notes that are shown one by one
KINDS_OF_NOTES = 100  # in the metadata
PARTIAL = ".partial"  # beside the finished folder: the shards of a build that is going on, or was killed


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may choose when a data set is prepared; builders add fields.

    Attributes:
        size: side of the stored pictures, where they are cropped or resized; 0 where they are stored as they are.
    """

    size: int = 0


class OptionsConfig(tfds.core.BuilderConfig):
    """A named set of options."""

    def __init__(self, *, options: Options, **kwargs: Any):
        super().__init__(**kwargs)
        self.options = options


class PictureBuilder(ManualBuilder, skip_registration=True):  # pyright: ignore
    """Lists the user's files, checks the list, then stores every example; several processes, each file read once.

    A subclass names its `VARIANTS` (the first is the default) and `fields`, lists the files in `list_files`, and where
    pictures are not stored whole says in `encode` how. `jobs` is the number of processes, 0 for all cores.

    Args (besides those of ManualBuilder):
      allow_missing: how many examples may be missing or unreadable; they are recorded in the metadata as `missing`.
    """

    VERSION: ClassVar[tfds.core.Version] = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    HOMEPAGE: ClassVar[str | None] = None
    VARIANTS: ClassVar[Mapping[str, Options]] = {"default": Options()}
    SUPERVISED_KEYS: ClassVar[tuple[str, str] | None] = ("image", "label")  # as TFDS's `as_supervised` returns them
    CHANNELS: ClassVar[int] = 3
    PICTURES_PER_EXAMPLE: ClassVar[int] = (
        1  # roughly; of clips more, so that few of them are work for several processes
    )
    jobs = 0
    _problems: Problems
    _shards: Mapping[str, Shards]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)  # gives the class its name
        if "BUILDER_CONFIGS" not in cls.__dict__:
            cls.BUILDER_CONFIGS = [cls.named_config(name, {}) for name in cls.VARIANTS]

    def __init__(self, *, allow_missing: int = 0, **kwargs: Any):
        self.allow_missing = allow_missing
        super().__init__(**kwargs)
        self._original_state = {**self._original_state, "allow_missing": allow_missing}

    @classmethod
    def make(cls, variant: str, data_dir: str | None, options: Mapping[str, Any]) -> PictureBuilder:
        """Returns the builder of a variant with options; `allow_counts` and `allow_missing` are among them."""
        changes = dict(options)
        allowed = {name: changes.pop(name) for name in ("allow_counts", "allow_missing") if name in changes}
        config = cls.named_config(variant or next(iter(cls.VARIANTS)), changes)
        named = [c.name for c in cls.BUILDER_CONFIGS]
        # TFDS takes a configuration of its list by name only.
        builder = cls(config=config.name if config.name in named else config, data_dir=data_dir, **allowed)
        builder.check_options(changes)
        return builder

    @classmethod
    def named_config(cls, name: str, changes: Mapping[str, Any]) -> OptionsConfig:
        """Returns the configuration of a variant with some of its options replaced; its name says which.

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
        # Of a path, such as that of a detector's weights, its last part: the name becomes a folder's.
        changed = {f: pathlib.PurePath(str(getattr(options, f))).name for f in fields}
        parts = [f"{f}{value}" for f, value in changed.items() if getattr(options, f) != getattr(base, f)]
        return OptionsConfig(name="-".join([name, *parts]), version=str(cls.VERSION), options=options)

    def check_options(self, given: Collection[str]) -> None:
        """Refuses options of which no example can be made; `given` are the names of those that the user gave."""

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
        """Lists the examples; problems with single files go into `problems`, those of the whole are raised."""

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        """Returns the fields of an example and notes on what was converted; here: one picture, stored whole."""
        picture = copied(item.files[0], self.CHANNELS, self.picture_size())
        return {"image": picture.file(), "label": item.label, **item.fields}, picture.notes

    def beside(self, item: Item) -> Sequence[str]:
        """Returns the files that `encode` reads besides the item's own, so that a change of them is seen."""
        del item
        return ()

    def example_name(self, where: str) -> str:
        """Returns what the metadata call the example at a path that messages name; here: its file."""
        return pathlib.PurePath(where).name

    def picture_size(self) -> tuple[int, int] | None:
        """(height, width) of stored pictures, None where they differ."""
        shape = self.features["image" if "image" in self.features else "frames"].shape[-3:]
        return None if None in shape else (shape[0], shape[1])

    def serialize(self, example: Mapping[str, Any]) -> bytes:
        return self.features.serialize_example(dict(example))

    def read(self, manual_dir: epath.Path) -> Listing:  # pyright: ignore
        self._problems = problems = Problems(f"{self.name} in {manual_dir}")
        listing = self.list_files(manual_dir, problems)
        _check_names(listing, problems)
        if not any(listing.items.values()) and not (problems.mistakes or problems.gaps):
            raise UserError(f"{manual_dir} holds no picture of {self.name}: {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        problems.raise_if_any(self.allow_missing)
        counts = listing.counts(self.classes)
        warnings = check_counts(self.name, counts, listing.expected, self.allow_counts, len(problems.gaps))
        return dataclasses.replace(listing, warnings=(*listing.warnings, *warnings, *one_sided(counts)))

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As in `ManualBuilder`; what a build has written stays until the data set is whole, and then goes."""
        super().download_and_prepare(**kwargs)
        shutil.rmtree(self._partial(), ignore_errors=True)

    def write_ahead(self) -> None:
        """Reads every picture and writes all shards, before TFDS deletes what it overwrites."""
        listing = self.contents
        assert isinstance(listing, Listing)
        settings = [self.name, str(self.version), self.builder_config_name, self.options]
        options = dataclasses.asdict(self.options).values()
        settings += [size_and_time(value) for value in options if isinstance(value, str) and os.path.isfile(value)]
        written = write_splits(self, listing.items, self._partial(), self.jobs, repr(settings))
        problems = self._problems
        problems.gaps += [gap for shards in written.values() for _, shard in shards for gap in shard.gaps]
        problems.raise_if_any(self.allow_missing)
        self._shards = {split: [one for one in shards if one[1].labels] for split, shards in written.items()}
        if not any(self._shards.values()):
            missing = listed(problems.gaps)
            raise UserError(f"{problems.name}: no example is left of all that are missing; mend them\n{missing}")

    def _partial(self) -> pathlib.Path:
        return pathlib.Path(self.data_path).parent / f".{self.version}{PARTIAL}"

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Puts the shards into the folder that TFDS makes; they stay beside it until that is finished."""
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

    def _finish(self, listing: Listing, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Completes the metadata and the lines that `prepare` prints."""
        gaps, unlisted = self._problems.gaps, self._problems.unlisted
        notes = self.notes()
        warnings = list(listing.warnings)
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
            classes=list(self.classes),
            **listing.metadata,
        )


def _summary(notes: Sequence[str]) -> list[str]:
    """Returns notes 'file: note' as they are where few say the same, else one line for all of these."""
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
    """Refuses file names that are no text, as archives of other systems leave them: they cannot be stored."""
    for items in listing.items.values():
        for item in items:
            for text in (*item.files, *(value for value in item.fields.values() if isinstance(value, str))):
                if not text.isascii() and text.encode(errors="replace").decode() != text:
                    shown = text.encode(errors="surrogateescape").decode(errors="replace")
                    problems.mistake(shown, "has a name that is not UTF-8: unpack it again, saying its encoding")


def _link(shard: pathlib.Path, place: Any) -> None:
    """Makes the file appear at a second place; copied where the disk has no links."""
    try:
        os.link(shard, place)
    except OSError:
        shutil.copyfile(shard, place)


def picture_feature(size: tuple[int, int] | None, channels: int) -> tfds.features.Image:
    """The feature of stored pictures, of one size or of any."""
    height, width = size or (None, None)
    return tfds.features.Image(shape=(height, width, channels), dtype=np.uint8)
