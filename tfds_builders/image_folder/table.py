"""A table of pictures: a CSV file with the columns path, label and perhaps split, subject, x, y, w, h."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Mapping

from fer_jax import labels
from fer_jax.errors import UserError, nearest
from fer_jax.faces.pictures import is_picture
from fer_jax.parsing import LARGEST_PIXEL, numbers, read_text, table_rows
from tfds_builders.face_crops import Box
from tfds_builders.image_folder.folders import ONE_SPLIT
from tfds_builders.image_folder.rows import Row, wrong_split
from tfds_builders.listing import files_below, nfc
from tfds_builders.problems import Problems

NEEDED = ("path", "label")
BOX = ("x", "y", "w", "h")
COLUMNS = (*NEEDED, "split", "subject", *BOX)
DELIMITERS = (",", ";", "\t")


def find_table(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the table of that name, by default the one CSV file of the folder; None if there is none.

    Raises:
        UserError: if `name` does not exist, or there are several.
    """
    files = files_below(root)
    tables = sorted(n for n in files if n.lower().endswith(".csv") and not n.startswith("."))
    if name:
        if nfc(name) in files:
            return pathlib.Path(files[nfc(name)])
        if not (root / name).is_file():
            raise UserError(f"{root / name} is not there: {nearest(name, tables)}")
        return root / name
    if len(tables) > 1:
        raise UserError(f"{root} holds {', '.join(tables)}: name the table with --option=table={tables[0]}")
    return pathlib.Path(files[tables[0]]) if tables else None


def read_table(path: pathlib.Path, problems: Problems) -> tuple[list[Row], list[str]]:
    """Returns the rows in order, and warnings.

    Raises:
        UserError: for a header without the needed columns, and text that is not CSV in UTF-8.
    """
    text = read_text(path, "save it as 'CSV UTF-8'")
    lines = table_rows(io.StringIO(text, newline=""), path, "correct it", delimiter=_delimiter(path, text))
    header, *table = [(line, [cell.strip() for cell in cells]) for line, cells in lines]
    header = [column.lower() for column in header[1]]
    for column in COLUMNS:
        if header.count(column) > 1:
            raise UserError(f"{path} has the column '{column}' twice: take one of them out")
    boxes = [column for column in BOX if column in header]
    if boxes and len(boxes) < len(BOX):
        raise UserError(f"{path} has only {', '.join(boxes)} of a face's box: give all of {', '.join(BOX)}, or none")
    rows, seen = [], set()
    folders: dict[str, Mapping[str, str]] = {}
    for number, cells in table:
        if not any(cells):
            continue
        where = f"{path}:{number}"
        if len(cells) != len(header):
            problems.mistake(where, f"has {len(cells)} cells, and the header {len(header)}: correct it")
            continue
        row = _row(where, dict(zip(header, cells, strict=True)), path.parent, problems)
        if row is None:
            continue
        folder, name = os.path.split(row.path)
        if folder not in folders:
            folders[folder] = files_below(_as_on_disk(folder))
        if (file := folders[folder].get(nfc(name))) is None:
            problems.gap(row.path, f"is in {path.name} and is not there: correct its path, or copy it again")
            continue
        if (file, row.box) in seen:
            problems.mistake(where, f"names {row.name} a second time: remove one of the rows")
            continue
        seen.add((file, row.box))
        rows.append(row._replace(path=file))
    return rows, _warnings(path, header, rows, folders)


def _delimiter(path: pathlib.Path, text: str) -> str:
    header = text.partition("\n")[0]
    for delimiter in DELIMITERS:
        columns = [column.strip().strip('"').lower() for column in header.split(delimiter)]
        if all(column in columns for column in NEEDED):
            return delimiter
    raise UserError(
        f"{path} begins with '{header.strip()[:60]}', but the first row must name the columns path,label and perhaps "
        "split,subject,x,y,w,h; correct it, or take it out of the folder if the pictures lie in folders of classes"
    )


def _row(where: str, cells: Mapping[str, str], folder: pathlib.Path, problems: Problems) -> Row | None:
    cells = {c: labels.class_name(text) if c in ("label", "subject") else text for c, text in cells.items()}
    for column in ("path", "label", "split", "subject"):
        if cells.get(column, "-") == "":
            problems.mistake(where, f"has no {column}: fill it in" + _or_leave_out(column))
            return None
    split = cells.get("split", ONE_SPLIT)
    if told := wrong_split(split):
        problems.mistake(where, told)
        return None
    name = cells["path"].replace("\\", "/")
    if not is_picture(name.rpartition("/")[2]):
        problems.mistake(where, f"names {name[:60]}, whose ending is not that of a picture: correct it")
        return None
    path = os.path.normpath(os.path.join(folder, name))
    box = None
    if any(cells.get(column) for column in BOX):
        box = _box([cells[column] for column in BOX])
        if box is None:
            told = ", ".join(cells[column] for column in BOX)
            problems.mistake(where, f"has the box {told[:60]}, which must be four numbers, w and h above 0: correct it")
            return None
    return Row(path, nfc(name), split, cells["label"], cells.get("subject"), box)


def _as_on_disk(folder: str) -> str:
    """Returns a folder's path with each name in the Unicode form that the disk has, as given if it does not exist."""
    parent, name = os.path.split(folder)
    if not name or os.path.isdir(folder):
        return folder
    parent = _as_on_disk(parent)
    with contextlib.suppress(OSError):
        name = next((one for one in os.listdir(parent) if nfc(one) == nfc(name)), name)
    return os.path.join(parent, name)


def _or_leave_out(column: str) -> str:
    return f", or leave the column {column} out" if column in ("split", "subject") else ""


def _box(cells: list[str]) -> Box | None:
    found = numbers(cells, LARGEST_PIXEL)
    return (found[0], found[1], found[2], found[3]) if len(found) == 4 and min(found[2:]) > 0 else None


def _warnings(
    path: pathlib.Path, header: list[str], rows: list[Row], folders: Mapping[str, Mapping[str, str]]
) -> list[str]:
    warnings = []
    unknown = [column for column in header if column not in COLUMNS]
    if unknown:
        warnings.append(f"{path}: other columns are not used ({', '.join(unknown)})")
    used = {row.path for row in rows}
    beside = sum(is_picture(n) and p not in used for files in folders.values() for n, p in files.items())
    if beside:
        warnings.append(f"{path}: {beside:,} pictures in the same folders are not in it, and left out")
    return warnings
