"""FER-2013's builder: every form of the original, every way it can be broken, and the real file."""

import functools
import importlib.util
import shutil
import subprocess
import sys

import building
import fake_fer2013
import numpy as np
import pytest

from fer_jax import labels
from fer_jax.errors import UserError
from tfds_builders import __main__ as command
from tfds_builders import prepared, registry
from tfds_builders.fer2013 import fer2013_dataset_builder, folders, reading

build = functools.partial(building.build, "fer2013")
refusal = functools.partial(building.refusal, "fer2013")


@pytest.fixture(scope="module")
def fake():
    return fake_fer2013.make()


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    """The fake files count as the published ones."""
    monkeypatch.setattr(reading, "COUNTS", fake_fer2013.COUNTS)


def examples(builder, split):
    return list(builder.as_data_source(split))


@pytest.mark.parametrize("form", ["fer2013.csv", "icml_face_data.csv", "fer2013.tar.gz", "fer2013/fer2013.csv"])
def test_csv_forms(form, fake, tmp_path):
    if form.endswith(".tar.gz"):
        fake_fer2013.write_archive(tmp_path, fake)
    else:
        fake_fer2013.write_csv((tmp_path / form).parent, fake, form.rpartition("/")[2])
    builder = build(tmp_path, tmp_path / "data")
    for split, name in enumerate(reading.SPLITS):
        read = examples(builder, name)
        rows = np.flatnonzero(fake.split == split)
        assert [e["row"] for e in read] == rows.tolist()
        np.testing.assert_array_equal([e["image"][..., 0] for e in read], fake.images[rows])
        assert [e["code"] for e in read] == fake.code[rows].tolist()
        assert [e["label"] for e in read] == [
            labels.EMOTIONS.index(labels.canonical("fer2013", int(c))) for c in fake.code[rows]
        ]
        assert [e["black"] for e in read] == [row == fake_fer2013.BLACK_ROW for row in rows]
        assert [e["leaked"] for e in read] == [row in fake_fer2013.LEAKED_ROWS for row in rows]
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    metadata = registry.make_builder("fer2013", str(tmp_path / "data")).info.metadata
    assert metadata["complete"]
    assert "MD5" in metadata["warnings"][0]


def test_prepared_folders_are_lossless_and_their_test_splits_told_apart(fake, tmp_path):
    fake_fer2013.write_prepared_folders(tmp_path / "files" / "data", fake)
    builder = build(tmp_path / "files", tmp_path / "data")
    for split, name in enumerate(reading.SPLITS):
        rows = np.flatnonzero(fake.split == split)
        rows = rows[np.argsort(fake.code[rows], kind="stable")]
        read = examples(builder, name)
        np.testing.assert_array_equal([e["image"][..., 0] for e in read], fake.images[rows])
        assert {e["row"] for e in read} == {-1}
        assert sum(e["leaked"] for e in read) == (2 if split == 0 else 0)


def test_kaggle_folders_keep_the_split_in_the_name(fake, tmp_path):
    fake_fer2013.write_kaggle_folders(tmp_path, fake)
    faces = folders.read_folder(folders.find_folder(fer2013_dataset_builder.epath.Path(tmp_path)))
    found = np.zeros_like(fake_fer2013.COUNTS)
    np.add.at(found, (faces.split, faces.code), 1)
    np.testing.assert_array_equal(found, fake_fer2013.COUNTS)
    assert faces.black.sum() == 1
    assert faces.leaked.sum() == 2  # equal pictures become equal JPEGs
    assert build(tmp_path, tmp_path / "data").info.splits["public_test"].num_examples == 9


def test_the_csv_comes_before_the_folders(fake, tmp_path):
    fake_fer2013.write_prepared_folders(tmp_path, fake)
    fake_fer2013.write_csv(tmp_path, fake)
    assert examples(build(tmp_path, tmp_path / "data"), "train")[0]["row"] == 0


def test_odd_but_sound_csv(fake, tmp_path):
    """A byte order mark, CRLF line ends, quoted pixels, a blank last line."""
    lines = [f'{code},"{pixels}",{usage}' for code, pixels, usage in fake.rows()]
    content = "\r\n".join(["\ufeffemotion,pixels,Usage", *lines, "", ""])
    (tmp_path / "fer2013.csv").write_bytes(content.encode())
    faces = reading.read_csv(fer2013_dataset_builder.epath.Path(tmp_path / "fer2013.csv"))
    np.testing.assert_array_equal(faces.images, fake.images)


def changed(row, column, value):
    def change(rows):
        rows[row][column] = value(rows[row][column]) if callable(value) else value

    return change


def pixel(position, value):
    def change(text):
        words = text.split()
        words[position] = value
        return " ".join(words)

    return change


BROKEN_ROWS = {
    "pixel missing": (
        changed(5, 1, lambda t: t.rpartition(" ")[0]),
        "line 7 (row 5), column pixels: 2,303 pixels",
    ),
    "pixel too bright": (changed(0, 1, pixel(17, "256")), "line 2 (row 0), column pixels: pixel 17 is '256'"),
    "pixel no number": (changed(3, 1, pixel(2303, "x")), "line 5 (row 3), column pixels: pixel 2303 is 'x'"),
    "code": (changed(2, 0, "7"), "line 4 (row 2), column emotion: '7' is not a code"),
    "split": (changed(1, 2, "Test"), "line 3 (row 1), column Usage: 'Test' is not a split"),
    "row lost": (
        lambda rows: rows.pop(),
        "private_test: 0 instead of 1",
    ),
    "label altered": (changed(0, 0, lambda t: str((int(t) + 1) % 7)), "not the published numbers"),
}


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_broken_rows(case, fake, tmp_path):
    change, message = BROKEN_ROWS[case]
    rows = fake.rows()
    change(rows)
    (tmp_path / "fer2013.csv").write_text(fake_fer2013.text(rows))
    assert message in refusal(tmp_path, tmp_path / "data")


BROKEN_FILES = {
    "cut off": (lambda whole: whole[:-5000], "line 36 (row 34): 2 fields instead of 3"),
    "empty": (lambda whole: b"", "is empty"),
    "only header": (lambda whole: b"emotion,pixels,Usage\n", "a header and no rows"),
    "no usage": (
        lambda whole: b"emotion,pixels\n1,2 3\n",
        "line 1: no column 'usage' in the header ('emotion, pixels')",
    ),
    "not utf-8": (lambda whole: whole.replace(b"PublicTest", b"Public\xffTest", 1), "line 19: byte "),
    "open quote": (lambda whole: whole.replace(b"\n", b'\n"', 1) * 20, "line "),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_files(case, fake, tmp_path):
    change, message = BROKEN_FILES[case]
    (tmp_path / "fer2013.csv").write_bytes(change(fake_fer2013.text(fake.rows()).encode()))
    assert message in refusal(tmp_path, tmp_path / "data")


def test_broken_archives(fake, tmp_path):
    path = fake_fer2013.write_archive(tmp_path, fake)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive"):
        path.write_bytes(content)
        assert "is damaged" in refusal(tmp_path, tmp_path / "data")
    with fake_fer2013.tarfile.open(path, "w:gz"):
        pass
    assert "holds neither" in refusal(tmp_path, tmp_path / "data")


def test_broken_folders(fake, tmp_path):
    def fresh():
        shutil.rmtree(tmp_path / "f", ignore_errors=True)
        fake_fer2013.write_prepared_folders(tmp_path / "f", fake)
        return tmp_path / "f"

    shutil.rmtree(fresh() / "test")
    assert "has no folder 'test'" in refusal(tmp_path / "f", tmp_path / "data")
    (fresh() / "train" / "sleepy").mkdir()
    assert "sleepy is not a class of FER-2013" in refusal(tmp_path / "f", tmp_path / "data")
    (fresh() / "train" / "happy" / "notes.txt").write_text("x")
    assert "notes.txt: not a name like" in refusal(tmp_path / "f", tmp_path / "data")
    (fresh() / "train" / "happy" / "im0.png").write_bytes(b"x")
    assert "im0.png is not a picture" in refusal(tmp_path / "f", tmp_path / "data")
    fake_fer2013.Image.new("L", (96, 64)).save(fresh() / "train" / "happy" / "im0.png")
    assert "im0.png is 96x64 pixels, not 48x48" in refusal(tmp_path / "f", tmp_path / "data")
    (fresh() / "train" / "happy" / "im0.png").unlink()
    assert "train: 3 instead of 4 happiness" in refusal(tmp_path / "f", tmp_path / "data")
    (fresh() / "train" / "happy" / "im0.png").rename(tmp_path / "f" / "train" / "happy" / "PublicTest_1.png")
    assert "does not belong in 'train'" in refusal(tmp_path / "f", tmp_path / "data")


def test_nothing_there(tmp_path):
    data = tmp_path / "data"
    assert "does not exist" in refusal(tmp_path / "absent", data)
    (tmp_path / "file").write_text("x")
    assert "is a file" in refusal(tmp_path / "file", data)
    folder = tmp_path / "folder"
    folder.mkdir()
    message = refusal(folder, data)
    assert "fer2013.csv, icml_face_data.csv, fer2013.tar.gz or train/<class>/" in message
    assert "Kaggle" in message
    (folder / "archive.zip").write_bytes(b"x")
    assert "unpack archive.zip" in refusal(folder, data)


def test_subsets_are_accepted_when_asked_for_and_recorded(fake, tmp_path):
    rows = [row for row in fake.rows() if row[2] != "PublicTest"][:20]
    (tmp_path / "fer2013.csv").write_text(fake_fer2013.text(rows))
    refusal(tmp_path, tmp_path / "data")
    builder = build(tmp_path, tmp_path / "data", allow_counts=True)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 17,
        "private_test": 3,
    }
    metadata = registry.make_builder("fer2013", str(tmp_path / "data")).info.metadata
    assert not metadata["complete"]


def test_another_version_and_unfinished_folders_are_told(fake, tmp_path):
    fake_fer2013.write_csv(tmp_path, fake)
    builder = build(tmp_path, tmp_path / "data")
    builder.data_path.rename(builder.data_path.parent / "0.1.0")
    builder = registry.make_builder("fer2013", str(tmp_path / "data"))
    with pytest.raises(UserError, match=r"fer2013 1\.0\.0 is not prepared .* version 0\.1\.0"):
        builder.as_data_source("train")
    builder.data_path.mkdir()
    with pytest.raises(UserError, match="not a finished data set: delete"):
        prepared.is_prepared(builder)


def test_command_line(fake, tmp_path, capsys):
    fake_fer2013.write_csv(tmp_path, fake)
    data = f"--data_dir={tmp_path / 'data'}"
    assert command.main(["build", "fer2013", f"--manual_dir={tmp_path}", data]) == 0
    output = capsys.readouterr().out
    assert "not a published file" in output
    assert "train             17  neutral 3  happiness 4" in output
    assert f"wrote {tmp_path / 'data' / 'fer2013' / '1.0.0'}" in output
    assert command.main(["build", "fer2103", data]) == 2
    assert capsys.readouterr().err == ("error: there is no builder for data set 'fer2103': did you mean 'fer2013'?\n")
    assert command.main(["build", "fer2013/small", data]) == 2
    assert "has no variants and no options: leave out 'small'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def real(real_data):
    spec = importlib.util.spec_from_file_location("packed_fer2013", real_data / "fer2013.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    images, emotion, usage, _, _ = script.load()
    code, split = emotion.astype(np.int64), usage.astype(np.int64)
    return reading.Faces(images, code, split, np.arange(len(code)), source="packed")


def test_real_counts_and_flags(real, monkeypatch):
    monkeypatch.undo()
    listing = real.listing()
    assert listing.counts(labels.classes(7)) == listing.expected
    assert np.flatnonzero(real.black).tolist() == [
        *(6458, 7629, 10423, 11286, 13148, 13402, 13988, 15894, 22198, 22927, 28601),
        30002,
    ]
    assert real.leaked.sum() == 703  # what is equal in the other splits: test_commands.py


@pytest.mark.slow
def test_whole_real_file_without_tensorflow(real_data, tmp_path):
    """The build of the published CSV, in a process of its own; its MD5 is known."""
    subprocess.run([sys.executable, real_data / "fer2013.py", tmp_path], check=True)
    program = (
        "import sys; from tfds_builders.__main__ import main; "
        f"arguments = ['--manual_dir={tmp_path}', '--data_dir={tmp_path / 'data'}']; "
        "assert main(['build', 'fer2013', *arguments]) == 0; "
        "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "the published fer2013.csv" in output
    assert "28,709" in output
