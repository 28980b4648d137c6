"""The base of builders of the user's files: it checks a listing first, then reads and stores every picture once."""

from __future__ import annotations

import abc
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder
from tensorflow_datasets.core.splits import SplitDict

from fer_jax import labels
from fer_jax.errors import UserError, nearest
from fer_jax.faces.detection import best_detector
from fer_jax.faces.pictures import copied
from fer_jax.storage import local
from tfds_builders.face_crops import cropped
from tfds_builders.layout import Absent
from tfds_builders.listing import (
    Item,
    Listing,
    by_class,
    check_counts,
    class_counts,
    one_sided,
    shared_files,
    unusual_counts,
)
from tfds_builders.look_alikes import equal_groups
from tfds_builders.options import Options, OptionsConfig, check_ranges, config_name, replaced
from tfds_builders.prepared import is_prepared, require_prepared
from tfds_builders.problems import Problems, in_full, listed
from tfds_builders.shards import Shards, size_and_time, write_splits

FEW_ALIKE = 3  # equal notes up to this number are shown one by one
PARTIAL = ".partial"  # beside the finished folder: shards of a build that is running or was killed
CROPPED_BY = {"faces": "points", "landmarks": "points", "boxes": "box"}


class PictureBuilder(FileReaderBuilder, skip_registration=True):  # pyright: ignore
    """Lists the user's files, checks the list, then stores every example in several processes as array_record.

    A subclass names its `VARIANTS` (the first is the default), lists the files in `list_files`, adds to `fields`, and
    defines `encode` unless its pictures are copied, or cropped by `face_crops.cropped`. `jobs` is the number of
    processes, 0 for all cores.

    Args (besides those of TFDS):
      allow_counts: accept files with other numbers of examples than published, as public copies often have;
        recorded in the metadata as `complete: false`.
      allow_missing: how many examples may be missing or unreadable; the metadata record them as `missing`.
      detector: of faces, for the processes of a build, which chooses it once; recorded in the metadata.
    """

    VERSION: ClassVar[tfds.core.Version] = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    HOMEPAGE: ClassVar[str | None] = None
    VARIANTS: ClassVar[Mapping[str, Options]] = {"default": Options()}  # {}: the data set has no options
    CHOICES: ClassVar[Mapping[str, Collection[Any]]] = {}  # values of the options that have only some
    CLASSES: ClassVar[Sequence[str]] = labels.classes(7)
    FILE_SIZE: ClassVar[tuple[int, int] | None] = None  # (height, width) of the files that are stored as they are
    AS_IS: ClassVar[str | None] = None  # the value of an option that stores files as they are, without `size`
    SQUARE: ClassVar[str] = "its README names the variant or option that crops faces"  # how to store square pictures
    CHANNELS: ClassVar[int] = 3
    PICTURES_PER_EXAMPLE: ClassVar[int] = 1  # roughly; more for clips, few of which occupy a process
    # Nothing is downloaded. TFDS's own property looks for checksums and needs importlib_resources for that, which it
    # does not install.
    url_infos = None  # pyright: ignore
    jobs = 0
    contents: Listing | None = None
    _problems: Problems
    _shards: Mapping[str, Shards]
    _digests: Mapping[str, Sequence[str]]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)  # gives the class its name
        if "BUILDER_CONFIGS" not in cls.__dict__:
            cls.BUILDER_CONFIGS = [cls.named_config(name, {}) for name in cls.VARIANTS]

    def __init__(self, *, allow_counts: bool = False, allow_missing: int = 0, detector: Any = None, **kwargs: Any):
        self.allow_counts, self.allow_missing, self.detector = allow_counts, allow_missing, detector
        super().__init__(file_format="array_record", **kwargs)
        allowed = {"allow_counts": allow_counts, "allow_missing": allow_missing}
        self._original_state = {**self._original_state, **allowed}  # for pickling

    @classmethod
    def make(cls, variant: str, data_dir: str | None, options: Mapping[str, Any]) -> PictureBuilder:
        """Returns the builder of a variant with options; `allow_counts` and `allow_missing` are among them."""
        changes = dict(options)
        allowed = {name: changes.pop(name) for name in ("allow_counts", "allow_missing") if name in changes}
        if not cls.VARIANTS:
            if given := variant or next(iter(changes), ""):
                raise UserError(f"{cls.name} has no variants and no options: leave out '{given}'")
            return cls(data_dir=data_dir, **allowed)
        config = cls.named_config(variant or next(iter(cls.VARIANTS)), changes)
        named = [c.name for c in cls.BUILDER_CONFIGS]
        # TFDS accepts a configuration of its list only by name.
        builder = cls(config=config.name if config.name in named else config, data_dir=data_dir, **allowed)
        builder.check_options()
        return builder

    @classmethod
    def named_config(cls, name: str, changes: Mapping[str, Any]) -> OptionsConfig:
        """Returns the configuration of a variant with some options replaced, which its name shows."""
        if name not in cls.VARIANTS:
            raise UserError(f"{cls.name} has no variant '{name}': {nearest(name, cls.VARIANTS)}")
        base = cls.VARIANTS[name]
        options = replaced(cls.name, base, changes, cls.CHOICES)
        return OptionsConfig(name=config_name(name, options, base), version=str(cls.VERSION), options=options)

    def check_options(self) -> None:
        """Raises unless the options that many builders have are within their ranges."""
        if self.as_is() and (self.options.size or self.options.margin):
            what = f"{self.AS_IS} pictures, which are stored as they are"
            raise UserError(f"{self.name}: size and margin do not apply to {what}: leave them out")
        copies = self.as_is() or (self.FILE_SIZE and not self.AS_IS and not self.searches_faces())
        check_ranges(self.name, self.options, smallest=0 if copies else 1)

    @property
    def options(self) -> Any:
        """The options of this configuration."""
        config = self.builder_config
        return config.options if isinstance(config, OptionsConfig) else Options()

    def as_is(self) -> bool:
        """Whether the pictures are stored as they are, without `size` and `margin`."""
        return self.AS_IS in dataclasses.astuple(self.options)

    def searches_faces(self) -> bool:
        """Whether `encode` uses `detector`."""
        return getattr(self.options, "crop", "") == "faces" and not self.as_is()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels, in order."""
        return tuple(self.CLASSES)

    def label(self, code: labels.Code) -> int:
        """Returns the index of the class that a code of the data set stands for."""
        return self.classes.index(labels.canonical(self.name, code))

    def item(
        self, files: str | Sequence[str], code: labels.Code, crop: Any = None, title: str = "", **fields: Any
    ) -> Item:
        """Returns an example with the label of its code; see `Item`."""
        files = (files,) if isinstance(files, str) else tuple(files)
        return Item(files, self.label(code), {"code": code, **fields}, crop, title)

    def published(
        self, counts: Mapping[str, Iterable[int]], codes: Collection[labels.Code] = ()
    ) -> dict[str, dict[str, int]]:
        """Returns split -> class -> number of examples, from split -> the published number of each code."""
        return {split: by_class(self.name, numbers, self.classes, codes) for split, numbers in counts.items()}

    def fields(self) -> dict[str, Any]:
        """Returns the features of an example by name."""
        f, side = tfds.features, self.options.size
        height, width = (side, side) if side else self.FILE_SIZE or (None, None)
        picture = f.Image(shape=(height, width, self.CHANNELS), dtype=np.uint8)
        clip = {"frames": f.Sequence(picture), "frame_mask": f.Tensor(shape=(None,), dtype=np.bool_)}
        image = {"image": picture, **({"no_face": np.bool_} if self.searches_faces() else {})}
        code = next(iter({**labels.CODES, **labels.COMPOUND_CODES}.get(self.name, [""])))
        return {
            **(clip if self.PICTURES_PER_EXAMPLE > 1 else image),
            "label": f.ClassLabel(names=list(self.classes)),
            "code": np.int64 if isinstance(code, int) else f.Text(),
            "name": f.Text(),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        fields = self.fields()
        shown = "image" if "image" in fields else "frames"
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(fields),
            supervised_keys=(shown, "label") if "label" in fields else None,
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    @abc.abstractmethod
    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        """Lists the examples; adds problems of single files to `problems`, raises others."""

    def encode(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        """Returns the pictures of an example, fields that are read with them, and notes on conversions.

        By default it is one picture: copied if it has no `size`, else cropped.
        """
        if self.options.size:
            return cropped(item.files[0], self.CHANNELS, self.options, self.detector, item.crop)
        picture = copied(item.files[0], self.CHANNELS, self.picture_size())
        return {"image": picture.file()}, picture.notes

    def example(self, item: Item) -> tuple[dict[str, Any], Sequence[str]]:
        """Returns all fields of an example, and notes on conversions."""
        stored, notes = self.encode(item)
        features: Any = self.info.features
        label = {"label": item.label} if "label" in features else {}
        return {**label, **item.fields, **stored}, notes

    def crop(self) -> dict[str, Any]:
        """Returns how faces were cropped, so that a model crops photos alike: `by` 'points' or 'box', with a `margin`.

        {} where the files are faces that others have cropped, or whole pictures.
        """
        crop = "" if self.as_is() else getattr(self.options, "crop", "")
        return {"by": CROPPED_BY[crop], "margin": self.options.margin} if crop in CROPPED_BY else {}

    def picture_size(self) -> tuple[int, int] | None:
        """(height, width) of stored pictures, None if they differ."""
        features: Any = self.info.features
        shape = features["image" if "image" in features else "frames"].shape[-3:]
        return None if None in shape else (shape[0], shape[1])

    def _stretched(self) -> tuple[str, ...]:
        """Returns a warning if the stored pictures are not square, because training resizes them to squares."""
        height, width = self.picture_size() or (1, 1)
        if height == width:
            return ()
        line = f"pictures of {width}x{height} pixels are not square, and training stretches them to squares"
        return (f"{line}: {self.SQUARE}",)

    def read(self, manual_dir: epath.Path) -> Listing:
        """Lists the files and checks the list.

        Raises:
          UserError: with the file, the place in it, and what to do.
        """
        self._problems = problems = Problems(self.name, str(manual_dir))
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
        listing = dataclasses.replace(listing, items={split: some for split, some in listing.items.items() if some})
        counts = listing.counts(self.classes)
        unusual = check_counts(self.name, counts, listing.expected, self.allow_counts, len(problems.gaps))
        more = (*unusual, *one_sided(counts), *shared_files(listing.items), *self._stretched())
        return dataclasses.replace(listing, warnings=(*listing.warnings, *more))

    def download_and_prepare(self, *, download_dir=None, download_config=None, **kwargs: Any) -> None:
        """Builds the data set unless it is prepared. For bad files it raises `UserError` and writes nothing."""
        config = download_config or tfds.download.DownloadConfig()
        if not is_prepared(self) or config.download_mode.overwrite_dataset:
            folder = config.manual_dir or epath.Path(download_dir or self.data_dir_root / "downloads") / "manual"
            # TFDS creates folders before it asks for examples: so read first.
            self.contents = self.read(_existing_folder(folder, self.name))
            for warning in self.contents.warnings:
                logging.warning("%s", warning)
            self._write_shards(self.contents)
        super().download_and_prepare(download_dir=download_dir, download_config=config, **kwargs)
        shutil.rmtree(self.partial(), ignore_errors=True)

    def as_data_source(self, *args: Any, **kwargs: Any):
        """As in TFDS; if the data set is not prepared, the error says what to run."""
        require_prepared(self)
        return super().as_data_source(*args, **kwargs)

    # TFDS prints "Downloading" and "Unknown size" here, though nothing is downloaded.
    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...

    def _write_shards(self, listing: Listing) -> None:
        """Reads every picture and writes all shards, before TFDS creates its folder."""
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
            raise UserError(f"{problems}: all examples are missing; fix them\n{listed(problems.gaps)}")

    def partial(self) -> pathlib.Path:
        """Returns the folder of the shards of a build that is not complete."""
        return pathlib.Path(self.data_path).parent / f".{self.version}{PARTIAL}"

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Links the shards into the folder that TFDS makes."""
        listing = self.contents
        assert listing is not None  # download_and_prepare has listed the files
        splits, counts = [], {}
        for split, shards in self._shards.items():
            if not shards:
                continue
            template = self._get_filename_template(split_name=split)
            for number, (path, _) in enumerate(shards):
                place = template.sharded_filepath(shard_index=number, num_shards=len(shards))
                try:
                    os.link(path, place)
                except OSError:  # the disk has no links
                    shutil.copyfile(path, place)
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
        notes = [note for shards in self._shards.values() for _, shard in shards for note in shard.notes]
        warnings = [*listing.warnings, *self._repeated(listing)]
        for lines, what in (
            (_summary(notes), "notes on single files"),
            (gaps, "examples missing, as --allow_missing allows"),
            (unlisted, "files left that no list names, as --allow_missing allows"),
        ):
            if lines:
                warnings.append(f"{len(lines)} {what}:\n{listed(lines)}{in_full(lines)}")
        self.contents = dataclasses.replace(listing, warnings=tuple(warnings))
        metadata = self.info.metadata
        assert metadata is not None  # every _info sets a MetadataDict
        every = {
            "complete": not gaps and not unusual_counts(counts, listing.expected),
            "counts": {split: dict(classes) for split, classes in counts.items()},
            "published": {split: dict(classes) for split, classes in listing.expected.items()},
            "missing": [self._problems.place(gap) for gap in gaps],
            "unlisted": [self._problems.place(gap) for gap in unlisted],
            "warnings": list(listing.warnings),
            "options": dataclasses.asdict(self.options),
            "crop": self.crop(),
        }
        metadata.update(every | ({"detector": str(self.detector)} if self.detector else {}) | dict(listing.metadata))


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


def _existing_folder(folder: os.PathLike | str, name: str) -> epath.Path:
    path = epath.Path(local(os.fspath(folder), "--manual_dir"))
    if not path.exists():
        raise UserError(f"{path} does not exist; give the folder with {name}'s original files as --manual_dir")
    if not path.is_dir():
        raise UserError(f"{path} is a file; give the folder it lies in as --manual_dir")
    return path
