"""Text and files that users bring, turned into plain values: with limits, and one line about whatever is wrong.

Everything is read here that this project did not just write itself, so a device given as a file, a number of 5,000
digits or a header that asks for terabytes is refused in the same way wherever it occurs.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import math
import os
import pathlib
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
from etils import epath

from fer_jax.errors import UserError, first_line, reading
from fer_jax.storage import expect_file, in_bucket

LARGEST_INTEGER = 10**18  # fits int64
LARGEST_NUMBER = 1e30  # fits float32, and so does the square of a millionth of it
LARGEST_PIXEL = 1e6  # coordinates of boxes and landmarks
LONGEST_TEXT = 1 << 16  # characters of a value in Python's syntax
LONGEST_LINE = 1 << 20  # characters
LARGEST_SHEET = 1 << 28  # bytes of one unpacked part of a spreadsheet
MEMORY_SHARE = 0.5  # of the machine's memory that one file may fill
COPY = "copy or download it again"


class Unreadable(UserError):
    """A file that cannot be used; `what` is the message without the name of the file."""

    def __init__(self, path: Any, what: str, advice: str):
        self.what = f"{what}: {advice}" if advice else what
        super().__init__(f"{path} {self.what}")


def whole_number(text: str, low: int = 0, high: int = LARGEST_INTEGER) -> int | None:
    """Returns the whole number from `low` to `high` written in ASCII digits; None for any other text."""
    value = int(text) if re.fullmatch(r"-?[0-9]{1,19}", text) else None
    return value if value is not None and low <= value <= high else None


def number(text: str, most: float = LARGEST_NUMBER) -> float | None:
    """Returns the number in a text if it lies within [-most, most]; None for any other text."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return None
    return value if abs(value) <= most else None


def numbers(words: Iterable[str], most: float = LARGEST_NUMBER) -> list[float]:
    """Returns the numbers that the words write, each within [-most, most]; [] if one of them is no such number."""
    values = [number(word, most) for word in words]
    return [] if None in values else [value for value in values if value is not None]


def literal(text: str) -> Any:
    """Returns a value in Python's syntax; raises ValueError for any other text."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"it has {len(text):,} characters, more than the {LONGEST_TEXT:,} that are read")
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a value in Python's syntax: {first_line(error)}") from error


def parse_json(text: str | bytes) -> Any:
    """Returns a value in JSON; raises ValueError for any other text."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_regular(path: Any, advice: str = COPY) -> int:
    """Returns the size of a file in bytes; raises Unreadable if there is none, or a folder, a device or a pipe."""
    try:
        if in_bucket(path):
            return epath.Path(path).stat().length
        status = os.stat(path)
    except FileNotFoundError as error:
        raise Unreadable(path, "is not there", advice) from error
    except Exception as error:  # ValueError: a name with a NUL; the packages of buckets have errors of their own
        raise Unreadable(repr(str(path)), f"cannot be read ({first_line(error)})", "check its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "device or a pipe, which may never end"
        raise Unreadable(path, f"is a {kind}", "give a file")
    return status.st_size


def read_bytes(path: Any, advice: str = COPY, most: float = math.inf) -> bytes:
    """Reads a regular file whole.

    Args:
        path: any path of etils.
        advice: what to do about a file that is missing, for the message.
        most: bytes; no file may fill more than `MEMORY_SHARE` of the memory in any case.

    Raises:
        Unreadable: for a file that is missing, not a regular one, too large, or not readable.
    """
    most = min(most, MEMORY_SHARE * machine_memory())
    if (size := check_regular(path, advice)) > most:
        raise Unreadable(path, f"has {size:,} bytes, more than the {most:,.0f} that are read", "give a smaller file")
    try:
        return epath.Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(path, f"cannot be read ({error.strerror or error})", "check its permissions") from error


def read_text(path: Any, advice: str = COPY, damaged: str = "strict") -> str:
    """Reads a text file in UTF-8.

    Args:
        path: any path of etils.
        advice: what to do about a file that is missing or no text, for the message.
        damaged: 'replace' accepts bytes that are not UTF-8.

    Raises:
        Unreadable: as `read_bytes`, and for a file that is no text.
    """
    data = read_bytes(path, advice)
    try:
        text = data.decode("utf-8-sig", damaged)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"{path}, line {line}", "is not UTF-8 text", advice) from error
    if "\0" in text:
        raise Unreadable(path, "holds NUL bytes, so it is not a text file", advice)
    return text


def read_json(path: Any, advice: str = COPY, fields: Mapping[str, Any] | None = None) -> Any:
    """Reads a file of JSON; raises Unreadable. With `fields` it must be an object that has them, of these types."""
    try:
        value = parse_json(read_bytes(path, advice))
    except ValueError as error:
        raise Unreadable(path, f"is damaged ({first_line(error)})", advice) from error
    if fields is not None and not isinstance(value, dict):
        raise Unreadable(path, "is damaged (it is not a JSON object)", advice)
    for field, kind in (fields or {}).items():
        if field not in value or not isinstance(value[field], kind):
            found = f"is {value[field]!r:.40}" if field in value else "is missing"
            raise Unreadable(path, f"is damaged (its '{field}' {found})", advice)
    return value


def text_lines(path: Any) -> Iterator[str]:
    """Yields the lines of a text file too large for memory; a line that is too long is cut into several."""
    check_regular(path)
    with reading(path), open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        while line := file.readline(LONGEST_LINE):
            yield line


def table_rows(lines: Iterable[str], name: Any, advice: str, **form: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of each row of CSV that is not blank; raises Unreadable for damaged rows.

    Args:
        lines: of the file, with or without line ends.
        name: of the file, for messages.
        advice: what to do about a damaged row.
        form: arguments of `csv.reader`.
    """
    reader = csv.reader(lines, **form)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise Unreadable(f"{name}, line {reader.line_num}", f"is not a row of a table ({error})", advice) from error


def read_xml(path: Any, advice: str = COPY) -> ElementTree.Element:
    """Reads an XML file; raises Unreadable."""
    try:
        return ElementTree.fromstring(read_bytes(path, advice, LARGEST_SHEET))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Unreadable(path, f"is not XML ({first_line(error)})", advice) from error


def read_sheet(path: Any, parts: Iterable[str], advice: str = COPY) -> dict[str, ElementTree.Element]:
    """Reads those of `parts` that a spreadsheet (.xlsx, a ZIP archive of XML) has; raises Unreadable."""
    data = read_bytes(path, advice)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = {part: archive.getinfo(part) for part in parts if part in archive.namelist()}
            if any(entry.file_size > LARGEST_SHEET for entry in there.values()):
                raise ValueError("it unpacks to more than a spreadsheet can hold")
            return {part: ElementTree.fromstring(archive.read(entry)) for part, entry in there.items()}
    except Exception as error:  # damaged archives lead to errors of zipfile, zlib, lzma, struct and the XML parser
        raise Unreadable(path, f"is not an .xlsx file ({first_line(error)})", advice) from error


def parse_array(data: bytes) -> np.ndarray:
    """Returns the array of an .npy file, read-only; raises ValueError for any other bytes.

    The sizes in the header must be those of the data, so nothing is allocated that the file does not hold.
    """
    file = io.BytesIO(data)
    try:
        form = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, columns_first, kind = form[np.lib.format.read_magic(file)](file)
        size, there = math.prod(shape) * kind.itemsize, len(data) - file.tell()
        if kind.hasobject or min(shape, default=0) < 0 or size != there:
            raise ValueError(f"its header asks for {size:,} bytes of {kind}, but {there:,} follow")
        values = np.frombuffer(data, kind, math.prod(shape), file.tell()) if size else np.zeros(0, kind)
        return values.reshape(shape, order="F" if columns_first else "C")
    except Exception as error:  # a damaged header leads to errors of NumPy, of Python's parser and of recursion
        raise ValueError(f"no .npy file: {first_line(error)}") from error


def read_arrays(path: Any, advice: str = COPY) -> dict[str, np.ndarray]:
    """Reads an .npz file; raises Unreadable."""
    data = read_bytes(path, advice)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MEMORY_SHARE * machine_memory():
                raise ValueError("it unpacks to more than the memory holds")
            names = archive.namelist()
            return {name.removesuffix(".npy"): parse_array(archive.read(name)) for name in names}
    except Exception as error:  # damaged archives lead to errors of zipfile, zlib, lzma and struct
        raise Unreadable(path, f"is not an .npz file ({first_line(error)})", advice) from error


def read_lines(path: Any) -> list[dict[str, Any]]:
    """Returns the whole lines of a file of JSON objects with a `step`; none if there is no file.

    A kill cuts the last line short, and a crash of the machine may leave any bytes: only those lines are lost.
    """
    expect_file(path)
    objects = []
    with reading(path):
        lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):
            value = parse_json(line)
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                objects.append(value)
    return objects


def looks_like(data: bytes) -> str:
    """Returns what a file of an unexpected format seems to be, judged by its first bytes."""
    beginning = data[:512].lstrip().lower()
    if not data:
        return "it is empty"
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps of a failed download"
    if beginning.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: fetch its file with git lfs pull"
    if data.startswith(b"PK"):
        return "it is a zip file, such as PyTorch's .pth and NumPy's .npz, which may hold code"
    if data.startswith(b"\x89HDF"):
        return "it is HDF5, as Keras writes it"
    if data.startswith(b"\x80"):
        return "it is a pickle, which may hold code"
    return f"it begins with {data[:8]!r}"


def machine_memory() -> int:
    """Returns the bytes of memory that this process may use: those of the machine, or of its container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 16 << 30
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        memory = min(memory, int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
