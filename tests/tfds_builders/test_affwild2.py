"""Aff-Wild2's builder: frames by the names in the first rows of the annotations, and what is wrong with copies."""

import fake_affwild2
import numpy as np
import pytest
from building import build, refusal

from fer_jax import labels


@pytest.fixture
def files(tmp_path):
    return fake_affwild2.make(tmp_path / "files")


@pytest.mark.parametrize("order", [fake_affwild2.CLASSES, fake_affwild2.CLASSES[::-1]])
def test_labels_are_read_by_name(tmp_path, order):
    files = fake_affwild2.make(tmp_path / "files", order)
    builder = build("affwild2", files, tmp_path / "data", size=12)
    assert builder.info.features["label"].names == [*labels.EMOTIONS[:7], "other"]
    for split in fake_affwild2.LABELS:
        source = builder.as_data_source(split)
        assert sorted((e["name"].decode(), fake_affwild2.CLASSES.index(e["code"].decode())) for e in source) == sorted(
            fake_affwild2.frames(split)
        )
        for example in source:
            word = example["code"].decode()
            name = builder.info.features["label"].names[example["label"]]
            assert name == ("other" if word == "Other" else labels.name_of(word))
            np.testing.assert_allclose(example["image"], fake_affwild2.level(fake_affwild2.CLASSES.index(word)), atol=2)
    assert any("2 videos, 11 frames with a label" in line for line in builder.contents.found)
    assert any("license of Aff-Wild2 restricts sharing models" in line for line in builder.contents.warnings)


def test_two_people_in_a_video_are_one_subject(files, tmp_path):
    source = build("affwild2", files, tmp_path / "data", size=12).as_data_source("train")
    subjects = {e["name"].decode().partition("/")[0]: int(e["subject"]) for e in source}
    assert subjects["video93_left"] == subjects["video93_right"]
    assert len(set(subjects.values())) == 3


def test_each_second_frame(files, tmp_path):
    source = build("affwild2", files, tmp_path / "data", size=12, every=2).as_data_source("validation")
    numbers = {int(e["name"][-9:-4]) for e in source}
    assert numbers == {1, 5}  # the third has no picture


def test_valence_and_arousal_of_frames_that_have_them(files, tmp_path):
    builder = build("affwild2", files, tmp_path / "data", size=12)
    found = {
        e["name"].decode(): (float(e["valence"]), float(e["arousal"]))
        for split in fake_affwild2.LABELS
        for e in builder.as_data_source(split)
        if not np.isnan(e["valence"])
    }
    frames = [name for name, _ in fake_affwild2.frames("validation") if name.startswith("282/")]
    assert found == {"12-24-1920x1080/00001.jpg": (0.5, -0.25)} | dict.fromkeys(frames, (-0.5, 0.75))
    assert any(": 5 of those used have valence and arousal" in line for line in builder.contents.found)
    path = files / "Annotations" / "VA_Estimation_Challenge" / "Train_Set" / "282.txt"
    for text, says in (("arousal\n0", "in its first row"), ("valence,arousal\n0", "has '0' where valence and arousal")):
        path.write_text(text)
        assert says in refusal("affwild2", files, tmp_path)


def test_annotations_that_are_wrong(files, tmp_path):
    path = fake_affwild2.list_file(files, "train", "video93_left")
    rows = path.read_text().split()
    for changed, says in (
        ([*rows, "8"], "has '8' where a number from -1 to 7 is expected"),
        ([*rows, "", "1"], "has '' where a number from -1 to 7 is expected"),
        ([rows[0].replace("Other", "Contempt"), *rows[1:]], "has the class 'Contempt' in its first row"),
        (rows[1:], "in its first row, and they are Neutral, Anger"),
    ):
        path.write_text("\n".join(changed))
        assert says in refusal("affwild2", files, tmp_path)
    path.write_text("\n".join(rows))
    twice = fake_affwild2.list_file(files, "validation", "video93_left")
    twice.write_text("\n".join(rows))
    assert f"{twice} has the video of {path}" in refusal("affwild2", files, tmp_path)


def test_videos_that_are_missing(files, tmp_path):
    gone = files / "cropped_aligned" / "282"
    gone.rename(files / "elsewhere")
    assert f"{gone} has annotations and is not there" in refusal("affwild2", files, tmp_path)
    gone.mkdir()
    assert f"{gone} has annotations and has no pictures" in refusal("affwild2", files, tmp_path)
    builder = build("affwild2", files, tmp_path / "data", size=12, allow_missing=1)
    assert {e["name"].decode().partition("/")[0] for e in builder.as_data_source("validation")} == {"video59"}
    assert any("1 videos, such as test_video, have no annotations" in line for line in builder.contents.found)
    for picture in (files / "cropped_aligned" / "video59").iterdir():
        picture.rename(picture.with_name(f"frame{picture.name}"))
    assert "none of which has a picture" in refusal("affwild2", files, tmp_path, allow_missing=1)
    (files / "Annotations" / fake_affwild2.TASK).rename(files / "Annotations" / "Other_Challenge")
    assert "has no EXPR_Classification_Challenge of Aff-Wild2" in refusal("affwild2", files, tmp_path)
    assert "size=0 must be from 1" in refusal("affwild2", files, tmp_path, size=0)
