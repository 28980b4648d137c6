"""Reads the vectors of a few words from published embedding files, which may be far larger than memory.

Formats: the binary form of Mikolov et al. (2013): a line "count dimension", then for each word its bytes, a space and
little-endian float32 numbers, with or without a line break before the next word; and text with a word and its numbers
on each line (GloVe; the text form of fastText and of Mikolov et al. begins with a line "count dimension"). Reading
stops at the last requested word.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import lzma
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Iterator
from typing import IO, cast

import numpy as np

from fer_jax.errors import UserError, first_line
from fer_jax.parsing import check_regular, numbers, whole_number
from fer_jax.storage import local

CHUNK = 1 << 20  # bytes read at a time
LONGEST_WORD = 1 << 12  # bytes; the longest phrase of GoogleNews has about a hundred
LARGEST_DIMENSION = 1 << 14
FASTTEXT_MODEL = (793712314).to_bytes(4, "little")  # the start of fastText's own model files

Vectors = dict[str, np.ndarray]


def read_vectors(path: str, words: Collection[str]) -> Vectors:
    """Returns those of `words` that the file contains: float32 [dimension] by word, the first if a word is repeated.

    The name decides the format: `.bin` is binary, `.csv` text with commas, everything else text with spaces; `.gz` and
    a `.zip` with one file are unpacked while reading. A text file that is cut off within the last requested number
    looks the same as a complete one without a final line break.

    Raises:
        UserError: if the file cannot be read, is not an embedding file, is cut off before all words were found, or has
            rows of different dimensions.
    """
    place = pathlib.Path(local(path, "config.model.vectors"))
    try:
        with _opened(place) as (stream, name):
            if name.endswith(".bin"):
                return _from_binary(stream, place, words)
            return _from_text(stream, place, words, b"," if name.endswith(".csv") else None)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(
            f"config.model.vectors: {place} is damaged or incomplete ({first_line(error)}): download it again"
        ) from error
    except OSError as error:
        raise UserError(f"config.model.vectors: cannot read {place}: {error.strerror or error}") from error
    except RuntimeError as error:  # from zipfile: encrypted, or compressed by a method that Python does not support
        raise UserError(
            f"config.model.vectors: cannot unpack {place} ({first_line(error)}): unpack it and give the file inside"
        ) from error


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tuple[IO[bytes], str]]:
    """Opens a file, unpacking it if necessary; yields it with the name that tells its format."""
    check_regular(path, "give another config.model.vectors")
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
                    f"config.model.vectors: {path} contains {len(files)} files ({', '.join(files[:4])}): "
                    "unpack it and give one of them"
                )
            yield stack.enter_context(archive.open(files[0])), files[0].lower()
        else:
            yield raw, name


def _from_binary(stream: IO[bytes], path: pathlib.Path, words: Collection[str]) -> Vectors:
    header = stream.readline(64)
    if header.startswith(FASTTEXT_MODEL):
        raise UserError(f"config.model.vectors: {path} is a fastText model: give its text form, the .vec file")
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
                raise _no_embedding(path, f"there is no word before vector {row + 1}")
            more = stream.read(CHUNK)
            if not more:
                raise UserError(
                    f"config.model.vectors: {path} is incomplete: it ends within word {row + 1:,} of {count:,}, before "
                    f"{_listed(wanted.values())}; download it again"
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
    lines = iter(lambda: stream.readline(CHUNK), b"")
    read = 0
    for line in lines if counts else itertools.chain([first], lines):
        read += 1
        if len(line) == CHUNK:
            raise _no_embedding(path, f"line {read} has more than {CHUNK:,} bytes")
        # Compare the word first: splitting a line into 300 numbers is much slower.
        key = line[:LONGEST_WORD].split(separator, 1)[0] if line.strip() else b""
        if key not in wanted:
            continue
        fields = line.split(separator)[1:]
        values = _numbers(fields)
        if values is None and len(fields) > dimension:
            continue  # GloVe has entries with spaces: this is a longer entry that begins with the word
        if values is None or len(values) != dimension:
            raise UserError(
                f"config.model.vectors: {path} has {len(fields)} numbers for '{wanted[key]}', where {dimension} finite "
                "ones belong: it is damaged or incomplete; download it again"
            )
        found[wanted.pop(key)] = values
        if not wanted:
            break
    if wanted and counts and read < counts[0]:
        raise UserError(
            f"config.model.vectors: {path} is incomplete: it has {read:,} of {counts[0]:,} words and lacks "
            f"{_listed(wanted.values())}; download it again (a binary file must be named .bin)"
        )
    return found


def _header(line: bytes) -> tuple[int, int] | None:
    """Returns (count, dimension) if a line is such a header, else None."""
    fields = line.decode("ascii", "replace").split()
    if len(fields) != 2:
        return None
    count, dimension = whole_number(fields[0], 1), whole_number(fields[1], 1, LARGEST_DIMENSION)
    return (count, dimension) if count and dimension else None


def _numbers(fields: list[bytes]) -> np.ndarray | None:
    values = numbers(field.decode("ascii", "replace") for field in fields)
    return np.array(values, np.float32) if values else None


def _no_embedding(path: pathlib.Path, why: str) -> UserError:
    return UserError(f"config.model.vectors: {path} is not an embedding file ({why}); see fer_jax/words/README.md")


def _listed(words: Collection[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))
