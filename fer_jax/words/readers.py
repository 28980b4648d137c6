"""Reads the vectors of a few words out of published embedding files, which may be far larger than memory.

Formats: the binary form of Mikolov et al. (2013: a line "count dimension", then per word its bytes, a blank and
little-endian float32, with or without a line break before the next word), and text, a word and its numbers to a line
(GloVe; the text form of fastText and of Mikolov et al. begins with a line "count dimension"). Reading stops at the
last word wanted.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Iterator
from typing import IO, cast

import numpy as np

from fer_jax.errors import UserError, first_line

CHUNK = 1 << 20  # bytes read at a time
LONGEST_WORD = 1 << 12  # bytes; GoogleNews' longest phrase has about a hundred
LARGEST_DIMENSION = 1 << 14
FASTTEXT_MODEL = (793712314).to_bytes(4, "little")  # how fastText's own model files begin

Vectors = dict[str, np.ndarray]


def read_vectors(path: str, words: Collection[str]) -> Vectors:
    """Returns those of `words` that the file has: float32 [dimension] by word; the first wins where one comes twice.

    The format follows the name: `.bin` binary, `.csv` text with commas, all else text with blanks; `.gz` and a
    `.zip` that holds one file are read as they are. A text file that is cut off within the very last number that is
    wanted cannot be told from a whole one without its last line break.

    Raises:
        UserError: for a file that cannot be read, is no embedding file, is cut off before all words were found, or
            whose rows differ in their dimension.
    """
    place = pathlib.Path(path).expanduser()
    try:
        with _opened(place) as (stream, name):
            if name.endswith(".bin"):
                return _from_binary(stream, place, words)
            return _from_text(stream, place, words, b"," if name.endswith(".csv") else None)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"config.model.vectors: {place} is damaged or cut off ({first_line(error)}): get the file anew"
        ) from error
    except OSError as error:
        raise UserError(f"config.model.vectors: cannot read {place}: {error.strerror or error}") from error
    except RuntimeError as error:  # of zipfile: encrypted, or packed by a method that Python does not have
        raise UserError(
            f"config.model.vectors: {place} cannot be unpacked here ({first_line(error)}): unpack it and name the file "
            "in it"
        ) from error


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tuple[IO[bytes], str]]:
    """Opens a file, unpacked where it is packed; yields it with the name that says its format."""
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        name, magic = path.name.lower(), raw.peek(4)[:4]
        if magic[:2] == b"\x1f\x8b":
            yield cast(IO[bytes], stack.enter_context(gzip.open(raw))), name.removesuffix(".gz")
        elif magic == b"PK\x03\x04":
            archive = stack.enter_context(zipfile.ZipFile(raw))
            files = [f for f in archive.namelist() if not f.endswith("/")]
            if len(files) != 1:
                raise UserError(
                    f"config.model.vectors: {path} holds {len(files)} files ({', '.join(files[:4])}): "
                    "unpack it and name one of them"
                )
            yield stack.enter_context(archive.open(files[0])), files[0].lower()
        else:
            yield raw, name


def _from_binary(stream: IO[bytes], path: pathlib.Path, words: Collection[str]) -> Vectors:
    header = stream.readline(64)
    if header.startswith(FASTTEXT_MODEL):
        raise UserError(f"config.model.vectors: {path} is a model of fastText: name its text form, the .vec file")
    counts = _header(header)
    if counts is None:
        raise _no_embedding(path, "a binary embedding file begins with a line 'count dimension'")
    count, dimension = counts
    size = 4 * dimension
    wanted = {word.encode(): word for word in words}
    found: Vectors = {}
    buffer, start = b"", 0
    for row in range(count):
        blank = buffer.find(b" ", start, start + LONGEST_WORD)
        while blank < 0 or len(buffer) < blank + 1 + size:
            if blank < 0 and len(buffer) - start > LONGEST_WORD:
                raise _no_embedding(path, f"there is no word in front of vector {row + 1}")
            more = stream.read(CHUNK)
            if not more:
                raise UserError(
                    f"config.model.vectors: {path} is cut off: it ends within word {row + 1:,} of {count:,}, before "
                    f"{_listed(wanted.values())}; get the file anew"
                )
            buffer, start = buffer[start:] + more, 0
            blank = buffer.find(b" ", 0, LONGEST_WORD)
        word = wanted.pop(buffer[start:blank].lstrip(b"\n"), None)
        if word is not None:
            found[word] = np.frombuffer(buffer, "<f4", dimension, blank + 1).astype(np.float32)
            if not wanted:
                break
        start = blank + 1 + size
    return found


def _from_text(stream: IO[bytes], path: pathlib.Path, words: Collection[str], separator: bytes | None) -> Vectors:
    first = stream.readline(CHUNK)
    counts = _header(first) if separator is None else None
    dimension = counts[1] if counts else len(first.split(separator)) - 1
    if not counts and (dimension < 2 or _numbers(first.split(separator)[1:]) is None):
        raise _no_embedding(path, "its first line is neither 'count dimension' nor a word and its numbers")
    wanted = {word.encode(): word for word in words}
    found: Vectors = {}
    lines = stream if counts else itertools.chain([first], stream)
    read = 0
    for line in lines:
        read += 1
        # The word in front is looked at first: splitting a line into 300 numbers costs much more.
        key = line[:LONGEST_WORD].split(separator, 1)[0] if line.strip() else b""
        if key not in wanted:
            continue
        fields = line.split(separator)[1:]
        values = _numbers(fields)
        if values is None and len(fields) > dimension:
            continue  # GloVe has entries with blanks in them: a longer entry that begins with the word
        if values is None or len(values) != dimension:
            raise UserError(
                f"config.model.vectors: {path} has {len(fields)} numbers for '{wanted[key]}' and a dimension of "
                f"{dimension}: the file is damaged or cut off; get it anew"
            )
        found[wanted.pop(key)] = values
        if not wanted:
            break
    if wanted and counts and read < counts[0]:
        raise UserError(
            f"config.model.vectors: {path} is cut off: it has {read:,} of {counts[0]:,} words, without "
            f"{_listed(wanted.values())}; get the file anew (a binary file must be named .bin)"
        )
    return found


def _header(line: bytes) -> tuple[int, int] | None:
    """Returns (count, dimension) of a first line, None where it is none."""
    fields = line.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        return None
    count, dimension = map(int, fields)
    return (count, dimension) if count > 0 and 0 < dimension <= LARGEST_DIMENSION else None


def _numbers(fields: list[bytes]) -> np.ndarray | None:
    try:
        return np.array([float(field) for field in fields], np.float32)
    except ValueError:
        return None


def _no_embedding(path: pathlib.Path, why: str) -> UserError:
    return UserError(f"config.model.vectors: {path} is no embedding file ({why}); see fer_jax/words/README.md")


def _listed(words: Collection[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))
