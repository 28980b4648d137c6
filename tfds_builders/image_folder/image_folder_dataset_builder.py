"""Builder of the user's own faces, in folders of classes or in a table; each data set has a name of its own.

The listing of the files decides the classes; later they are read from the features beside the prepared data. TFDS has
an `ImageFolder` of its own, which reads the original files through TensorFlow, so this builder is not registered.
`tfds.data_source('image_folder/mine')` reads what was prepared; `registry.make_builder('image_folder/mine')` returns
the builder.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from fer_jax.errors import UserError, some
from fer_jax.labels import COMPOUND_CODES
from fer_jax.parsing import whole_number
from tfds_builders.image_folder.folders import read_folders
from tfds_builders.image_folder.rows import Row, check_splits, classes_of, common_size, split_order
from tfds_builders.image_folder.table import find_table, read_table
from tfds_builders.listing import Item, Listing, numbered
from tfds_builders.options import CropOptions, OptionsConfig
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.problems import Problems

NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
DEFAULT = "default"
CROPS = ("none", "square", "faces")


@dataclasses.dataclass(frozen=True)
class FolderOptions(CropOptions):
    """
    Attributes:
        crop: 'none', 'square' (around the box if there is one, else the largest in the middle) or 'faces'.
        table: the CSV file, if the folder holds several.
        compound_codes: the data set whose codes the classes are, of `labels.COMPOUND_CODES`; '' for names.
    """

    crop: str = "none"
    table: str = ""
    compound_codes: str = ""


@dataclasses.dataclass(frozen=True)
class Schema:
    """The part of the features that the files decide.

    Attributes:
        classes: names of the labels, in order.
        size: (height, width) of the stored pictures; None if none of them can be read.
        people: whether the subjects are known.
    """

    classes: tuple[str, ...]
    size: tuple[int, int] | None
    people: bool


class Builder(PictureBuilder, skip_registration=True):  # pyright: ignore
    """The user's own faces. See README.md for the files and features.

    Args (besides those of PictureBuilder):
      schema: of the listed files, passed to worker processes; by default that of the prepared data.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = "give a folder of <split>/<class>/a.jpg or <class>/a.jpg, or one with a CSV file"
    SQUARE = "--option=size=112 adds black bars, with --option=crop=square it takes the middle"
    VARIANTS = {DEFAULT: FolderOptions()}
    CHOICES = {"crop": CROPS, "compound_codes": ("", *COMPOUND_CODES)}
    BUILDER_CONFIGS = []

    def __init__(self, *, schema: Schema | None = None, **kwargs: Any):
        self._schema = schema
        self._described: tfds.core.DatasetInfo | None = None
        super().__init__(**kwargs)
        self._original_state = {**self._original_state, "schema": schema}  # for pickling

    @classmethod
    def make(cls, variant: str, data_dir: str | None, options: Mapping[str, Any]) -> PictureBuilder:
        """Returns the builder of the data set with a name that the user chose; options matter only when it is built.

        Args:
            variant: the name; `default` if neither it nor the option `name` is given.
            data_dir: folder of prepared data sets.
            options: `name`, those of `FolderOptions`, `allow_missing`.
        """
        name = options.get("name", variant) or DEFAULT
        if variant and name != variant:
            raise UserError(f"image_folder has two names, '{variant}' and '{name}': leave one of them out")
        if not isinstance(name, str) or not NAME.match(name):
            raise UserError(
                f"image_folder: the name '{name}' must begin with a letter and have letters, digits and _ only"
            )
        return super().make(name, data_dir, {key: value for key, value in options.items() if key != "name"})

    @classmethod
    def named_config(cls, name: str, changes: Mapping[str, Any]) -> OptionsConfig:
        """The name is the one that the user chose; the options are recorded in the metadata."""
        checked = super().named_config(DEFAULT, changes)
        return OptionsConfig(name=name, version=checked.version, options=checked.options)

    def _create_builder_config(
        self, builder_config: OptionsConfig | str | None, version: str | tfds.core.Version | None
    ) -> OptionsConfig:
        """Accepts any name, which TFDS would look for in a list."""
        del version
        if isinstance(builder_config, OptionsConfig):
            return builder_config
        return self.named_config(builder_config or DEFAULT, {})

    @property
    def info(self) -> tfds.core.DatasetInfo:
        """As in TFDS, but made again once the files are listed."""
        if self._described is None:
            self._described = self._info()
        return self._described

    def check_options(self) -> None:
        if self.options.crop != "none" or self.options.size:
            super().check_options()

    @property
    def classes(self) -> tuple[str, ...]:
        features: Any = self.info.features
        return self._schema.classes if self._schema else tuple(features["label"].names or ())

    def fields(self) -> dict[str, Any]:
        f, schema = tfds.features, self._schema
        if schema is None and (self.data_path / "features.json").exists():
            prepared = f.FeaturesDict.from_config(self.data_path)
            assert isinstance(prepared, f.FeaturesDict)
            return dict(prepared)
        height, width = (schema and schema.size) or (None, None)
        return {
            "image": f.Image(shape=(height, width, self.CHANNELS), dtype=np.uint8),
            "label": f.ClassLabel(names=schema and list(schema.classes)),
            "code": f.Text(),
            "name": f.Text(),
            **({"subject": np.int64} if schema and schema.people else {}),
            **({"no_face": np.bool_} if self.searches_faces() else {}),
        }

    def _describe(self, schema: Schema) -> None:
        """Sets what the files decide, in place of the features of an earlier build."""
        self._schema = self._original_state["schema"] = schema
        self._described = None
        self.info.set_file_format("array_record")

    def list_files(self, manual_dir: epath.Path, problems: Problems) -> Listing:
        options, root = self.options, pathlib.Path(manual_dir)
        table = find_table(root, options.table)
        rows, warnings = read_folders(root, problems) if table is None else read_table(table, problems)
        problems.raise_if_any(self.allow_missing)  # before sizes are compared
        if not rows:
            raise UserError(f"{table or root} names no picture: {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        warnings += check_splits(table or root, rows)
        names = _named({row.word for row in rows}, options.compound_codes, table or root)
        classes = classes_of(names.values())
        if len(classes.names) < 2:
            line = f"{table or root} has one class, '{''.join(classes.names)}', and two are needed"
            raise UserError("; ".join([*warnings, line]))
        size = (options.size, options.size) if options.size else common_size(rows)
        people = numbered(row.subject for row in rows if row.subject is not None)
        self._describe(Schema(classes.names, size, bool(people)))
        if options.crop == "none" and any(row.box for row in rows):
            warnings.append(
                "the boxes of faces are not used: use them with --option=crop=square or --option=crop=faces"
            )
        items = {
            split: [_item(row, classes.index[names[row.word]], people) for row in rows if row.split == split]
            for split in split_order(rows)
        }
        shown = {split: {item.label for item in some_items} for split, some_items in items.items()}
        if strange := [split for split in shown if not shown[split] & shown.get("train", shown[split])]:
            raise UserError(
                f"{table or root}: no class of the split {strange[0]} is in train, so that none can be recognized; if "
                "the classes are people, give the folder train alone and test a part of it with config.data.folds"
            )
        return Listing(
            items=items,
            found=(f"{table or root}: {len(rows):,} pictures of {some(classes.names)}",),
            warnings=(*warnings, *classes.warnings),
            metadata={"subjects": list(people)},
        )

    def as_data_source(self, *args: Any, **kwargs: Any):
        """As in TFDS, but raises for other options than the data were prepared with."""
        stored_with = (self.info.metadata or {}).get("options", {})
        for field, value in dataclasses.asdict(self.options).items():
            if value != getattr(FolderOptions(), field) and value != stored_with.get(field, value):
                raise UserError(
                    f"image_folder/{self.builder_config_name} is prepared with {field}={stored_with[field]}, not "
                    f"{value}: leave that option out, or build it again with --overwrite or under another name"
                )
        return super().as_data_source(*args, **kwargs)


def _named(words: Collection[str], codes: str, where: pathlib.Path) -> dict[str, str]:
    """Returns the name of each class by its word in the files, a code of `codes` unless that is ''.

    Raises:
        UserError: for a word that is no code of the data set.
    """
    if not codes:
        return {word: word for word in words}
    known = COMPOUND_CODES[codes]
    if wrong := sorted(word for word in words if whole_number(word) not in known):
        raise UserError(
            f"{where} has the class '{wrong[0]}', and the codes of {codes} are {min(known)} to {max(known)}: correct "
            "it, or leave out --option=compound_codes"
        )
    return {word: known[int(word)] for word in words}


def _item(row: Row, label: int, people: Mapping[str, int]) -> Item:
    subject = {} if row.subject is None else {"subject": people[row.subject]}
    return Item((row.path,), label=label, fields={"code": row.word, "name": row.name, **subject}, crop=row.box)
