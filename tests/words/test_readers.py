"""Readers of embedding files, on small files in the true formats and on genuine rows of GoogleNews."""

import gzip
import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.words import readers
from fer_jax.words.readers import read_vectors

WORDS = ("in", "happy", "Happy", "new_york", "sad", "naïve", "angry")
RNG = np.random.default_rng(0)
TABLE = {word: RNG.normal(size=5).astype(np.float32) for word in WORDS}


def binary(table, line_breaks=False, count=None):
    """The bytes that word2vec.c writes: with a line break behind each vector (GoogleNews has none)."""
    dimension = len(next(iter(table.values())))
    data = [f"{count or len(table)} {dimension}\n".encode()]
    for word, vector in table.items():
        data += [word.encode(), b" ", np.asarray(vector, "<f4").tobytes(), b"\n" * line_breaks]
    return b"".join(data)


def text(table, header=False, separator=" ", end="\n"):
    lines = [separator.join([word, *map(repr, map(float, vector))]) + end for word, vector in table.items()]
    return (f"{len(table)} {len(next(iter(table.values())))}\n" * header + "".join(lines)).encode()


def zipped(name, data, *more):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in ((name, data), *more):
            archive.writestr(entry, content)
    return buffer.getvalue()


def altered(data, at, value, size=2):
    """A zip with one field changed in the local header, `at` bytes from its begin, and in the central directory."""
    data = bytearray(data)
    for begin in (at, data.rindex(b"PK\x01\x02") + at + 2):
        data[begin : begin + size] = value.to_bytes(size, "little")
    return bytes(data)


FILES = {
    "GoogleNews.bin": binary(TABLE),
    "word2vec.bin": binary(TABLE, line_breaks=True),
    "GoogleNews.bin.gz": gzip.compress(binary(TABLE)),
    "GoogleNews.bin.zip": zipped("GoogleNews.bin", binary(TABLE)),
    "glove.txt": text(TABLE),
    "glove.txt.gz": gzip.compress(text(TABLE)),
    "glove.zip": zipped("glove.txt", text(TABLE)),
    "fasttext.vec": text(TABLE, header=True, end=" \n"),
    "fasttext.vec.gz": gzip.compress(text(TABLE, header=True)),
    "no_last_break.txt": text(TABLE).rstrip(),
    "windows.txt": text(TABLE, end="\r\n"),
    "table.csv": text(TABLE, separator=","),
}


@pytest.mark.parametrize("chunk", [7, readers.CHUNK])  # words and vectors straddle the edges of what is read at a time
@pytest.mark.parametrize("name", FILES)
def test_the_formats(name, chunk, tmp_path, monkeypatch):
    if name.endswith((".bin", ".bin.gz", ".bin.zip")):
        monkeypatch.setattr(readers, "CHUNK", chunk)
    (tmp_path / name).write_bytes(FILES[name])
    found = read_vectors(str(tmp_path / name), ["angry", "happy", "naïve", "absent"])
    assert set(found) == {"angry", "happy", "naïve"}  # 'Happy' is another word
    for word, vector in found.items():
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, TABLE[word])


def test_vectors_may_hold_the_bytes_of_blanks_and_line_breaks(tmp_path):
    # 0x20202020 and 0x0a0a0a0a are floats too; a reader that looks for separators inside vectors breaks on them.
    blanks = np.frombuffer(b" " * 12 + b"\n" * 8, "<f4")
    (tmp_path / "x.bin").write_bytes(binary({"a": blanks, "b": blanks, "sad": TABLE["sad"]}))
    np.testing.assert_array_equal(read_vectors(str(tmp_path / "x.bin"), ["sad"])["sad"], TABLE["sad"])


def test_reading_stops_at_the_last_word_and_holds_no_more_than_a_chunk(tmp_path):
    """As with GoogleNews' 3.6 GB: what lies behind the words is never touched, what lies before is not kept."""
    many = {f"w{i}": np.full(300, i, np.float32) for i in range(12_000)}  # 14 MB
    data = binary(many | {"happy": np.ones(300)}, count=3_000_000) + b"here the file is damaged"
    (tmp_path / "big.bin").write_bytes(data)
    tracemalloc.start()
    found = read_vectors(str(tmp_path / "big.bin"), ["happy", "w11999"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["happy"].sum() == 300
    assert found["w11999"][0] == 11_999
    assert peak < 4 * readers.CHUNK


def test_a_longer_entry_that_begins_with_the_word(tmp_path):
    """GloVe's 840B file has entries with blanks in them."""
    longer = {"sad song": TABLE["in"]} | TABLE
    (tmp_path / "glove.txt").write_bytes(text(TABLE | longer).replace(b"in ", b"in ", 1))
    np.testing.assert_array_equal(read_vectors(str(tmp_path / "glove.txt"), ["sad"])["sad"], TABLE["sad"])


MISTAKES = {
    "cut.bin": (binary(TABLE)[:-10], "ends within word 7 of 7, before 'angry'"),
    "empty.bin": (b"", "not an embedding file .*'count dimension'"),
    "picture.bin": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50, "not an embedding file"),
    "noise.bin": (b"10 300\n" + b"x" * 5000, "vector 1"),
    "model.bin": (readers.FASTTEXT_MODEL + bytes(100), r"fastText.* \.vec"),
    "cut.bin.gz": (gzip.compress(binary(TABLE))[:-30], "damaged .*EOFError"),
    "damaged.txt.gz": (b"\x1f\x8b" + b"?" * 60, "damaged .*BadGzipFile"),
    "damaged.zip": (b"PK\x03\x04" + b"?" * 60, "damaged .*BadZipFile"),
    "glove.6B.zip": (zipped("a.50d.txt", b"x", ("b.300d.txt", b"x")), "2 files .*unpack it and give one"),
    "encrypted.zip": (altered(zipped("a.txt", text(TABLE)), 6, 1), "cannot unpack .*encrypted.*: unpack it"),
    "another_method.zip": (altered(zipped("a.txt", text(TABLE)), 8, 97), "cannot unpack .*: unpack it and"),
    "empty.txt": (b"", "not an embedding file"),
    "letter.txt": (b"Dear Sir,\n\nyours\n", "not an embedding file .its first line"),
    "picture.jpg": (bytes(range(256)) * 50, "not an embedding file"),
    "short.txt": (
        text(TABLE).replace(b"angry ", b"angry 1.0 2.0\nx "),
        "2 numbers for 'angry', where 5",
    ),
    "long.txt": (text(TABLE).replace(b"angry ", b"angry 1.0 "), "has 6 numbers for 'angry', where 5"),
    "words.vec": (text(TABLE, header=True).replace(b"angry ", b"angry x"), "5 numbers for 'angry'"),
    "cut.vec": (text(TABLE, header=True).split(b"angry")[0], "6 of 7 words .*'angry'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_file_that_is_none(name, tmp_path):
    content, says = MISTAKES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_vectors(str(tmp_path / name), ["angry"])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("config.model.vectors: ")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="nowhere.bin is not there: give another config.model.vectors"):
        read_vectors(str(tmp_path / "nowhere.bin"), ["sad"])
    with pytest.raises(UserError, match="is a folder"):
        read_vectors(str(tmp_path), ["sad"])


def test_genuine_rows_of_google_news(real_data, tmp_path):
    rows = real_data / "googlenews_w2v_happy_sad_joy.txt"
    if not rows.exists():
        pytest.skip(f"needs {rows}")
    genuine = read_vectors(str(rows), ["happy", "sad", "joy"])
    (tmp_path / "GoogleNews.bin").write_bytes(binary(genuine))
    found = read_vectors(str(tmp_path / "GoogleNews.bin"), ["happy", "sad", "joy"])
    happy, sad = found["happy"].astype(np.float64), found["sad"].astype(np.float64)
    assert happy.shape == (300,)
    assert happy @ sad / np.linalg.norm(happy) / np.linalg.norm(sad) == pytest.approx(0.535, abs=5e-4)
    np.testing.assert_array_equal(found["joy"], genuine["joy"])
    assert np.linalg.norm(happy) == pytest.approx(2.6, abs=1.5)  # not of unit length: the cosine must divide by it
