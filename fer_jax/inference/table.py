"""The file to which predictions are written one by one: CSV or JSON lines, resumed after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from fer_jax.errors import UserError, first_line, reading, writing
from fer_jax.evaluation.predictions import PredictionRow, csv_cells, csv_header, csv_text, json_object
from fer_jax.locks import alone
from fer_jax.parsing import parse_json, read_json, table_rows
from fer_jax.storage import expect_file, write_whole

ANOTHER = "give another --out, or delete it"
JSON_ENDINGS = (".jsonl", ".ndjson")
ENDINGS = (".csv", *JSON_ENDINGS)


class Table:
    """Writes rows of predictions to a file, or to the standard output.

    FILE.origin.json beside FILE records the inputs, model and options that it was made from. The same command resumes
    a table that a kill cut short, and does not change a finished one.

    Attributes:
        skipped: number of inputs whose rows are all in the file already.
        rows_there: number of rows of the next input that are in the file already.
        finished: whether the file has all rows.
    """

    def __init__(
        self, path: pathlib.Path | None, classes: Sequence[str], inputs: Sequence[str], origin: Mapping[str, Any]
    ):
        """`inputs`: names in order; `origin`: model and options, plain JSON values.

        Raises:
            UserError: if the file exists and was made from something else, is being written, or cannot be written.
        """
        self.skipped, self.rows_there, self.finished = 0, 0, False
        self._path, self._classes = path, classes
        self._json = path is not None and path.suffix.lower() in JSON_ENDINGS
        self._file: TextIO = sys.stdout
        self._lock = contextlib.ExitStack()
        digest = hashlib.sha256("\0".join(inputs).encode(errors="surrogatepass")).hexdigest()
        self._origin = dict(origin) | {"inputs": len(inputs), "inputs_sha256": digest}
        if path is None:
            self._write(self._header())
            return
        expect_file(path)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            busy = f"another process writes {path}: wait for it, or give another --out"
            self._lock.enter_context(alone(path.with_name(f".{path.name}.lock"), busy))
        if path.exists() and not self._belongs():
            raise UserError(
                f"{path} exists and was made from other inputs, another model or other options: give another --out, or "
                "delete it"
            )
        if not path.exists():
            self._begin()
        elif not self.finished:
            self._continue(inputs)

    @property
    def origin_path(self) -> pathlib.Path:
        assert self._path is not None
        return self._path.with_name(self._path.name + ".origin.json")

    def add(self, rows: Sequence[PredictionRow]) -> None:
        """Writes the rows that are not in the file yet, and flushes them, so that a kill loses none."""
        rows, self.rows_there = rows[self.rows_there :], max(self.rows_there - len(rows), 0)
        if self._json:
            self._write("".join(json.dumps(json_object(row, self._classes)) + "\n" for row in rows))
        else:
            self._write(csv_text(csv_cells(row, self._classes) for row in rows))

    def close(self, finished: bool) -> None:
        """Closes the file; `finished`: all rows are there."""
        if self._path is None or self.finished:
            return
        with self._lock, writing(self._path):
            self._file.close()
            if finished:
                self._write_origin(finished=True)

    def _write(self, text: str) -> None:
        with writing(self._path or "the standard output"):
            self._file.write(text)
            self._file.flush()

    def _header(self) -> str:
        return "" if self._json else csv_text([csv_header(self._classes)])

    def _begin(self) -> None:
        assert self._path is not None
        self._write_origin(finished=False)
        with writing(self._path):
            self._file = self._path.open("w", encoding="utf-8", newline="")
        self._write(self._header())

    def _belongs(self) -> bool:
        with contextlib.suppress(UserError, KeyError, TypeError, AttributeError):
            there = read_json(self.origin_path)
            self.finished = bool(there.pop("finished"))
            return there == self._origin
        return False

    def _continue(self, inputs: Sequence[str]) -> None:
        """Cuts off an incomplete last row, and finds out which inputs are there."""
        assert self._path is not None
        begun = complete = 0  # inputs that have rows, and bytes of the complete rows
        columns = len(csv_header(self._classes))
        try:
            with reading(self._path), self._path.open("rb") as file:
                for number, (source, end) in enumerate(_complete_rows(file, self._json, columns)):
                    complete = end
                    if not number and not self._json:
                        continue  # the header
                    if begun and source == inputs[begun - 1]:
                        self.rows_there += 1
                    elif begun < len(inputs) and source == inputs[begun]:
                        begun, self.rows_there = begun + 1, 1
                    else:
                        raise UserError(f"{self._path} has other rows than this command writes: {ANOTHER}")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._path} is damaged ({first_line(error)}): {ANOTHER}") from error
        self.skipped = max(begun - 1, 0)
        with writing(self._path):
            os.truncate(self._path, complete)
            self._file = self._path.open("a", encoding="utf-8", newline="")
        if not complete:
            self._write(self._header())

    def _write_origin(self, finished: bool) -> None:
        with writing(self.origin_path):
            write_whole(self.origin_path, json.dumps(self._origin | {"finished": finished}, indent=1) + "\n")


def _complete_rows(file: Iterable[bytes], as_json: bool, columns: int) -> Iterator[tuple[str, int]]:
    """Yields the first cell of each complete row of a table, and the number of bytes up to the end of the row.

    Raises:
        ValueError: if a row is incomplete that is not the last one.
    """
    end, whole = 0, True

    def lines() -> Iterator[str]:
        nonlocal end, whole
        for line in file:
            end, whole = end + len(line), line.endswith(b"\n")
            yield line.decode(errors="replace")  # the last row may be cut inside a letter

    if as_json:
        yield from ((parse_json(line)["source"], end) for line in lines() if whole)
        return
    broken = False
    for number, row in table_rows(lines(), "the table", ANOTHER):
        if broken:
            raise ValueError(f"the row before line {number} is incomplete")
        broken = not whole or len(row) != columns
        if not broken:
            yield row[0], end
