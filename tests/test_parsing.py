"""Every kind of damage ends in one line, at once, and good values come through."""

import io
import json
import os
import zipfile

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.parsing import (
    literal,
    number,
    numbers,
    parse_array,
    parse_json,
    read_arrays,
    read_bytes,
    read_json,
    read_sheet,
    read_text,
    table_rows,
    whole_number,
)


def test_numbers_are_ascii_finite_and_of_a_size_that_fits():
    assert [whole_number(text) for text in ("0", "42", "9" * 18)] == [0, 42, 10**18 - 1]
    assert [whole_number(text) for text in ("9" * 5000, "٤٢", "²", "1_0", " 1", "1.0", "", "-1")] == [None] * 8
    assert whole_number("-7", low=-9) == -7
    assert [number(text) for text in ("1e3", "-.5", " 2 ")] == [1000.0, -0.5, 2.0]
    assert [number(text) for text in ("9" * 5000, "nan", "inf", "1e300", "٤", "1_0", "")] == [None] * 7
    assert numbers(["1", "2"]) == [1.0, 2.0]
    assert numbers(["1", "1e300"]) == numbers(["1", "1e7"], most=1e6) == []


@pytest.mark.parametrize("parse", [literal, parse_json])
def test_a_deep_nest_is_no_value(parse):
    assert parse("[[1]]") == [[1]]
    for text in ("[" * 20_000 + "]" * 20_000, "9" * 5000 + "x", "[" * 60_000):
        with pytest.raises(ValueError, match="value|nest|delimiter"):
            parse(text)


def test_a_long_text_is_not_cut():
    with pytest.raises(ValueError, match="65,537 characters"):
        literal("1".ljust((1 << 16) + 1))


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_an_array_is_as_large_as_its_header_says():
    values = np.arange(6, dtype=np.int16).reshape(2, 3)
    for form in (values, np.asfortranarray(values), np.zeros((0, 3)), np.array("0.78")):
        np.testing.assert_array_equal(parse_array(npy(form)), form)
    whole = npy(values)
    asks = whole.replace(b"(2, 3)", b"(10000000000000, 3)").replace(b" " * 14 + b"\n", b"\n")
    deep = whole.replace(b"'shape': (2, 3)", b"'shape': " + b"(" * 3000)
    for broken in (asks, deep, whole[:-1], whole + b"x", whole[:20], b"", npy(np.array([None], object))):
        with pytest.raises(ValueError, match="no .npy file"):
            parse_array(broken)


@pytest.mark.parametrize("read", [read_bytes, read_text, read_json, read_arrays])
def test_only_regular_files_are_read(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path / "pipe", "may never end"),
        ("/dev/zero", "may never end"),
        (tmp_path, "is a folder"),
        (tmp_path / "none", "is not there"),
        (f"{tmp_path}/a\0b", "cannot be read"),
    ):
        with pytest.raises(UserError, match=says):
            read(path)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "file"
    for data, read in (
        (b"a\n\xff", read_text),
        (b"a\0b", read_text),
        (b'{"a":' + b"[" * 3000, read_json),
        (b"PK\x03\x04" + b"?" * 60, read_arrays),
        (damaged(b"a.npy", npy(np.zeros(2000))), read_arrays),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=str(path)) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="file, line 2 .*field larger"):
        list(table_rows(["a,b\n", "x" * 200_000], "file", "correct it"))


def damaged(name, content):
    """A compressed archive with wrong bytes in the middle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name.decode(), os.urandom(999) + content)
    data = file.getvalue()
    return data[:300] + bytes(200) + data[500:]


def test_a_spreadsheet_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sheet.xml", "<a>" + " " * 5000 + "</a>")
    assert read_sheet(tmp_path / "a.xlsx", ("sheet.xml", "none.xml"))["sheet.xml"].tag == "a"
    monkeypatch.setattr("fer_jax.parsing.LARGEST_SHEET", 1000)
    with pytest.raises(UserError, match="unpacks to more"):
        read_sheet(tmp_path / "a.xlsx", ("sheet.xml",))


def test_json_comes_through(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, 0.5]}))
    assert read_json(tmp_path / "a.json") == {"a": [1, 0.5]}
