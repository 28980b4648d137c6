"""The base of builders of picture files: a listing is checked first, then every picture is read once and stored."""

from __future__ import annotations

import abc
import dataclasses
import pathlib
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core.splits import SplitDict

from fer_jax.errors import UserError, nearest
from tfds_builders.listing import Item, Listing, check_counts, class_counts, unusual_counts
from tfds_builders.manual import ManualBuilder
from tfds_builders.pictures import copied
from tfds_builders.problems import Problems, listed
from tfds_builders.shards import write_split

_FILE = re.compile(r".*?([^/\\]+?\.\w{2,4})(?= |$)")  # the file that a line begins with; folders may have spaces
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
            if type(value) is not type(getattr(base, field)):
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

    def example_name(self, gap: str) -> str:
        """Returns what the metadata call the example that a line about a gap is on; here: its file."""
        match = _FILE.match(gap)
        return match[1] if match else gap

    def picture_size(self) -> tuple[int, int] | None:
        """(height, width) of stored pictures, None where they differ."""
        shape = self.features["image" if "image" in self.features else "frames"].shape[-3:]
        return None if None in shape else (shape[0], shape[1])

    def serialize(self, example: Mapping[str, Any]) -> bytes:
        return self.features.serialize_example(dict(example))

    def read(self, manual_dir: epath.Path) -> Listing:  # pyright: ignore
        self._where = f"{self.name} in {manual_dir}"
        problems = Problems(self._where)
        listing = self.list_files(manual_dir, problems)
        if not any(listing.items.values()) and not (problems.mistakes or problems.gaps):
            raise UserError(f"{manual_dir} holds no picture of {self.name}: {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        problems.raise_if_any(self.allow_missing)
        self._listed_gaps = problems.gaps
        counts = listing.counts(self.classes)
        # A gap that is allowed changes the counts by itself.
        allow = self.allow_counts or bool(problems.gaps)
        warnings = check_counts(self.name, counts, listing.expected, allow)
        return dataclasses.replace(listing, warnings=(*listing.warnings, *warnings))

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Writes the shards beside the folder that TFDS makes, and moves them into it when all are whole."""
        listing = self.contents
        assert isinstance(listing, Listing), "call download_and_prepare, which lists the files first"
        target = pathlib.Path(self.data_dir)  # TFDS's temporary folder
        partial = target.parent / f".{self.version}{PARTIAL}"
        settings = repr((self.name, str(self.version), self.builder_config_name, self.options))
        splits, gaps, notes, counts = [], list(self._listed_gaps), [], {}
        written = {}
        for split, items in listing.items.items():
            shards = write_split(self, split, items, partial, self.jobs, settings)
            for _, shard in shards:
                gaps += shard.gaps
                notes += shard.notes
            written[split] = [(path, shard) for path, shard in shards if shard.labels]
        problems = Problems(self._where)
        problems.gaps += gaps
        problems.raise_if_any(self.allow_missing)
        if not any(written.values()):
            raise UserError(f"{self._where}: no example is left of all that are missing; mend them\n{listed(gaps)}")
        for split, shards in written.items():
            if not shards:
                continue
            template = self._get_filename_template(split_name=split)
            for number, (path, _) in enumerate(shards):
                path.rename(template.sharded_filepath(shard_index=number, num_shards=len(shards)))
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
        self._finish(listing, gaps, notes, counts)
        shutil.rmtree(partial, ignore_errors=True)

    def _finish(
        self, listing: Listing, gaps: list[str], notes: list[str], counts: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Completes the metadata and the lines that `prepare` prints."""
        warnings = list(listing.warnings)
        if notes:
            warnings.append(f"{len(notes)} notes on single files:\n{listed(notes)}")
        if gaps:
            warnings.append(f"{len(gaps)} examples are missing, as --allow_missing allows:\n{listed(gaps)}")
        self.contents = dataclasses.replace(listing, warnings=tuple(warnings))  # pyright: ignore
        metadata = self.info.metadata
        assert metadata is not None  # every _info sets a MetadataDict
        complete = not gaps and not unusual_counts(counts, listing.expected)
        metadata.update(
            complete=complete,
            counts={split: dict(classes) for split, classes in counts.items()},
            published={split: dict(classes) for split, classes in listing.expected.items()},
            missing=[self.example_name(line) for line in gaps],
            warnings=list(listing.warnings),
            options=dataclasses.asdict(self.options),
            classes=list(self.classes),
            **listing.metadata,
        )


def picture_feature(size: tuple[int, int] | None, channels: int) -> tfds.features.Image:
    """The feature of stored pictures, of one size or of any."""
    height, width = size or (None, None)
    return tfds.features.Image(shape=(height, width, channels), dtype=np.uint8)
