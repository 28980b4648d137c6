"""A tiny DFEW: the tree, the names and the oddities of the real one; a frame is as gray as its number says."""

from __future__ import annotations

import functools
import io
import pathlib
import zipfile

import numpy as np
from PIL import Image

from fer_jax import labels

EDITION = "clip_224x224_16f"
COUNTS = (2, 2, 2, 1, 1, 1, 1)  # of the codes 1 to 7
FOLD_SIZES = (2, 2, 2, 2, 2)
FRAMES = 16
SHADE = 15  # gray of frame n is n times this


def clips() -> list[tuple[int, int, int]]:
    """(number, code, fold) by number."""
    codes = [code for code, n in enumerate(COUNTS, start=1) for _ in range(n)]
    codes = codes[::2] + codes[1::2]
    return [(37 * i + 5, code, i % 5) for i, code in enumerate(codes)]


@functools.cache
def frame(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((224, 224, 3), level, np.uint8)).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


def make(folder: pathlib.Path, mark: str = "-", edition: str = EDITION, nested: bool = False) -> pathlib.Path:
    """Writes the tree below `folder`. `mark` stands between 'single' and 'labeled', `nested` doubles the clips'."""
    for number, _, fold in clips():
        # Of two names that the documents give: 3.jpg and 1600_3.jpg.
        for n in range(1, FRAMES + 1) if edition == EDITION else range(1, 2 + fold):
            file = clip_folder(folder, number, edition, nested) / (f"{n}.jpg" if number % 2 else f"{number}_{n}.jpg")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(frame(SHADE * n))
    for number in (1, 16_000):  # without a single label
        file = clip_folder(folder, number, edition, nested) / "1.jpg"
        file.parent.mkdir(parents=True)
        file.write_bytes(frame(0))
    for fold in range(5):
        for part in ("train", "test"):
            rows = [f"{n},{c}" for n, c, other in clips() if (other == fold) == (part == "test")]
            path = list_file(folder, part, fold, mark)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(["video_name,label", *rows, ""]))
    return folder


def clip_folder(folder: pathlib.Path, number: int, edition: str = EDITION, nested: bool = False) -> pathlib.Path:
    return folder / "Clip" / edition / (edition if nested else "") / f"{number:05d}"


def list_file(folder: pathlib.Path, part: str, fold: int, mark: str = "-") -> pathlib.Path:
    return folder / "EmoLabel_DataSplit" / f"{part}(single{mark}labeled)" / f"set_{fold + 1}.csv"


def votes(code: int) -> list[int]:
    """Of the codes 1 to 7: seven for the label, three for others."""
    return [7 if c == code else 2 if c == code % 7 + 1 else int(c == (code + 1) % 7 + 1) for c in range(1, 8)]


def write_votes(folder: pathlib.Path, header: bool = True, order: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)) -> None:
    """Writes Annotation/annotation.xlsx with texts in a table of their own, as spreadsheet programs do."""
    names = [f"{code}{labels.CODES['dfew'][code]}" for code in order] + ["order", "label"]
    rows: list[list[int | str]] = [list(names)] if header else []
    for number, code, _ in clips():
        rows.append([*(votes(code)[c - 1] for c in order), number, code])
    rows.append([1, 1, 1, 1, 1, 5, 0, 1, 0])
    texts = sorted({cell for row in rows for cell in row if isinstance(cell, str)})
    lines = []
    for y, row in enumerate(rows, start=1):
        cells = []
        for x, cell in enumerate(row):
            place = f"{'ABCDEFGHI'[x]}{y}"
            if isinstance(cell, str):
                cells.append(f'<c r="{place}" t="s"><v>{texts.index(cell)}</v></c>')
            elif cell or x >= 7:  # programs leave empty cells out; DFEW's zeros are written here only half of the time
                cells.append(f'<c r="{place}"><v>{cell}</v></c>')
            else:
                cells.append(f'<c r="{place}"><v>0</v></c>')
        lines.append(f'<row r="{y}">{"".join(cells)}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    path = folder / "Annotation" / "annotation.xlsx"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        )
        archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{''.join(f'<si><t>{t}</t></si>' for t in texts)}</sst>")
