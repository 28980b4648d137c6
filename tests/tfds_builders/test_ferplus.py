"""FER+'s builder: votes reach the row they belong to, from either file, and broken files are refused."""

import functools
import importlib.util

import building
import fake_fer2013
import numpy as np
import pytest
from etils import epath

from fer_jax import labels
from fer_jax.data.targets import votes as targets
from tfds_builders.fer2013 import reading
from tfds_builders.ferplus import votes

COLUMNS = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
HEADER = f"Usage,Image name,{COLUMNS}"
NAMELESS = (3, 20)  # rows without a name, as the published file has them
TWICE = (5, 11)  # two rows of one name; label.csv keeps the second


build = functools.partial(building.build, "ferplus")
refusal = functools.partial(building.refusal, "ferplus")


@pytest.fixture(scope="module")
def fake():
    return fake_fer2013.make()


@pytest.fixture(autouse=True)
def small_counts(monkeypatch):
    """The fake files count as the published ones."""
    monkeypatch.setattr(reading, "COUNTS", fake_fer2013.COUNTS)
    monkeypatch.setattr(votes, "LABEL_COUNTS", (15, 8, 9))


def table(seed):
    """Ten votes for each of the 35 fake rows; the nameless ones all say that it is not a face."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(10, np.full(10, 0.1), size=35)
    counts[list(NAMELESS)] = [0] * 9 + [10]
    return counts


def names():
    """Names whose digits drift from the row after each nameless one."""
    numbers = np.arange(35) - np.cumsum(np.isin(np.arange(35), NAMELESS))
    numbers[TWICE[0]] = numbers[TWICE[1]]
    return ["" if row in NAMELESS else f"fer{number:07d}.png" for row, number in enumerate(numbers)]


def new_lines(fake, counts):
    rows = zip(fake.split, names(), counts, strict=True)
    return [f"{fake_fer2013.USAGES[s]},{name},{','.join(map(str, v))}" for s, name, v in rows]


def label_lines(fake, counts, split):
    left_out = (*NAMELESS, TWICE[0])
    rows = [row for row in np.flatnonzero(fake.split == split) if row not in left_out]
    return [f'{names()[row]},"(0, 0, 48, 48)",{",".join(map(str, counts[row]))}' for row in rows]


def write_new(folder, fake, change=lambda lines: None, header=HEADER):
    lines = [header, *new_lines(fake, table(1))]
    change(lines)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fer2013new.csv").write_text("\n".join(lines) + "\n")


def write_labels(folder, fake, change=lambda lines: None):
    """Writes the three files; `change` is applied to the training one."""
    for split, part in enumerate(("FER2013Train", "FER2013Valid", "FER2013Test")):
        lines = label_lines(fake, table(2), split)
        if split == 0:
            change(lines)
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "label.csv").write_text("\n".join(lines) + "\n")


def everything(builder):
    return [example for split in builder.info.splits for example in builder.as_data_source(split)]


@pytest.mark.parametrize("place", ["", "FERPlus/data"])
def test_votes_reach_their_rows(place, fake, tmp_path):
    fake_fer2013.write_csv(tmp_path, fake)
    write_labels(tmp_path / place, fake)
    write_new(tmp_path / "FERPlus", fake)
    read = everything(build(tmp_path, tmp_path / "out"))
    assert [e["row"] for e in read] == list(range(35))
    np.testing.assert_array_equal([e["image"][..., 0] for e in read], fake.images)
    has_label = ~np.isin(np.arange(35), (*NAMELESS, TWICE[0]))
    assert [e["has_label"] for e in read] == has_label.tolist()
    np.testing.assert_array_equal([e["votes_label"] for e in read], table(2) * has_label[:, None])
    assert all(e["has_new"] for e in read)
    np.testing.assert_array_equal([e["votes_new"] for e in read], table(1))
    assert [e["code"] for e in read] == fake.code.tolist()
    assert [e["fer2013_label"] for e in read] == [
        labels.EMOTIONS.index(labels.canonical("fer2013", int(c))) for c in fake.code
    ]
    assert sum(e["black"] for e in read) == 1
    assert sum(e["leaked"] for e in read) == 2


def test_the_new_file_alone(fake, tmp_path):
    fake_fer2013.write_archive(tmp_path, fake)
    write_new(tmp_path, fake)
    read = everything(build(tmp_path, tmp_path / "out"))
    np.testing.assert_array_equal([e["votes_new"] for e in read], table(1))
    assert not any(e["has_label"] for e in read)


def replaced(position, old, new):
    def change(lines):
        assert old in lines[position]
        lines[position] = lines[position].replace(old, new, 1)

    return change


def swapped(first, second):
    def change(lines):
        lines[first], lines[second] = lines[second], lines[first]

    return change


def with_votes(position, counts):
    def change(lines):
        fields = lines[position].split(",")
        lines[position] = ",".join([*fields[:-10], *counts.split()])

    return change


BROKEN_NEW = {
    "no header": (lambda lines: lines.pop(0), "line 1: the header is not 'Usage,Image name,neutral"),
    "row lost": (lambda lines: lines.pop(), "has 34 rows where fer2013.csv has 35"),
    "field lost": (
        lambda lines: lines.__setitem__(4, "Training,x,1"),
        "line 5 (row 3): 3 fields instead of 12",
    ),
    "other split": (replaced(2, "Training", "PublicTest"), "line 3 (row 1): Usage is 'PublicTest' where"),
    "order": (swapped(2, 3), "line 4: fer0000001.png is out of order"),
    "name": (replaced(2, "fer0000001.png", "x.jpg"), "line 3: 'x.jpg' is not a name like"),
    "word": (
        with_votes(2, "x 0 0 0 0 0 0 0 0 10"),
        "line 3 (row 1), column neutral: 'x' is not a number of votes",
    ),
    "eleven": (with_votes(2, "11 0 0 0 0 0 0 0 0 0"), "column neutral: '11' is not a number of votes"),
    "too few": (with_votes(2, "1 1 0 0 0 0 0 0 0 0"), "line 3 (row 1): 2 votes in all, not 10"),
    "empty": (lambda lines: lines.clear(), "fer2013new.csv is empty"),
}


@pytest.mark.parametrize("case", BROKEN_NEW)
def test_broken_new_file(case, fake, tmp_path):
    change, message = BROKEN_NEW[case]
    fake_fer2013.write_csv(tmp_path, fake)
    write_new(tmp_path, fake, change)
    assert message in refusal(tmp_path, tmp_path / "out")


BROKEN_LABELS = {
    "row lost": (lambda lines: lines.pop(), "label.csv has 14 rows, not 15 (train)"),
    "field lost": (replaced(0, '"(0, 0, 48, 48)",', ""), "line 1: 11 fields instead of 12"),
    "order": (swapped(1, 2), "line 3: 'fer0000001.png' is no picture of this split in fer2013new.csv, or out of order"),
    "too few": (with_votes(1, "1 1 0 0 0 0 0 0 0 0"), "line 2: 2 votes in all, not 10"),
}


@pytest.mark.parametrize("case", BROKEN_LABELS)
def test_broken_label_file(case, fake, tmp_path):
    change, message = BROKEN_LABELS[case]
    fake_fer2013.write_csv(tmp_path, fake)
    write_new(tmp_path, fake)
    write_labels(tmp_path, fake, change)
    assert message in refusal(tmp_path, tmp_path / "out")


def test_missing_files(fake, tmp_path):
    out = tmp_path / "out"
    files = tmp_path / "files"
    fake_fer2013.write_csv(files, fake)
    assert "has no fer2013new.csv" in refusal(files, out)
    write_labels(files / "data", fake)
    (files / "data" / "FER2013Valid" / "label.csv").unlink()
    assert "FER2013Valid/label.csv is missing" in refusal(files, out)
    only_votes = tmp_path / "votes"
    write_new(only_votes, fake)
    assert "has none of fer2013.csv, icml_face_data.csv, fer2013.tar.gz" in refusal(only_votes, out)
    fake_fer2013.write_prepared_folders(only_votes, fake)
    assert "no row numbers to join votes by" in refusal(only_votes, out)


def test_not_text(fake, tmp_path):
    fake_fer2013.write_csv(tmp_path, fake)
    (tmp_path / "fer2013new.csv").write_bytes(HEADER.encode() + b"\nTraining,\xff\n")
    assert "line 2 is not UTF-8 text" in refusal(tmp_path, tmp_path / "out")


def test_subsets_are_joined_by_name(fake, tmp_path):
    fake_fer2013.write_csv(tmp_path, fake)
    write_labels(tmp_path, fake, lambda lines: lines.pop(4))
    write_new(tmp_path, fake)
    builder = build(tmp_path, tmp_path / "out", allow_counts=True)
    lost = names().index("fer0000005.png")  # row 6: row 5 has the name of row 11, row 3 has none
    assert lost == 6
    expected = ~np.isin(np.arange(35), (*NAMELESS, TWICE[0], lost))
    read = everything(builder)
    assert [e["has_label"] for e in read] == expected.tolist()
    np.testing.assert_array_equal([e["votes_label"] for e in read], table(2) * expected[:, None])
    assert not builder.info.metadata["complete"]


@pytest.fixture(scope="module")
def real(real_data, tmp_path_factory):
    """The real vote files, written as the packed copy's own script writes them, and the truth by row."""
    spec = importlib.util.spec_from_file_location("packed_fer2013", real_data / "fer2013.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("ferplus")
    with np.load(script.PACKED) as packed:
        fields = {k: packed[k] for k in packed.files if k.startswith("ferplus") or k == "usage"}
    number, usage = fields["ferplus_image_number"], fields["usage"]
    named = ["" if n < 0 else f"fer{n:07d}.png" for n in number]
    rows = zip(usage, named, fields["ferplus_votes"], strict=True)
    lines = [f"{script.USAGE[split]},{name},{','.join(map(str, v))}" for split, name, v in rows]
    (folder / "fer2013new.csv").write_text("\n".join([f"Usage,Image name,{script.VOTES}", *lines]) + "\n")
    for code, part in enumerate(votes.LABEL_FOLDERS):
        (folder / part).mkdir()
        there = np.flatnonzero(fields["ferplus_in_label_csv"] & (usage == code))
        text = [",".join(map(str, fields["ferplus_label_votes"][i])) for i in there]
        lines = [f'{named[i]},"(0, 0, 48, 48)",{v}' for i, v in zip(there, text, strict=True)]
        (folder / part / "label.csv").write_text("\n".join(lines) + "\n")
    return epath.Path(folder), fields


def test_real_votes_reach_their_rows(real, monkeypatch):
    monkeypatch.undo()
    folder, fields = real
    split = fields["usage"].astype(np.int64)
    new = votes.read_new(votes.find_new(folder), split)
    np.testing.assert_array_equal(new.counts, fields["ferplus_votes"])
    label = votes.read_labels(votes.find_labels(folder), split, new.names, False)
    np.testing.assert_array_equal(label.present, fields["ferplus_in_label_csv"])
    np.testing.assert_array_equal(label.counts, fields["ferplus_label_votes"])
    differ = label.present & (label.counts != new.counts).any(axis=1)
    assert np.bincount(split[differ]).tolist() == [1073, 246, 282]
    keep, _ = targets.ferplus_targets(label.counts, "majority")
    assert np.bincount(split[keep]).tolist() == [25045, 3191, 3137]
