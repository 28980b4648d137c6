"""MMI's builder: which sessions are taken, how a face is brought upright, real videos, and bad copies."""

import shutil

import fake_mmi
import fake_pictures
import numpy as np
import pytest
from building import build, examples, refusal

from fer_jax import labels
from fer_jax.faces.crops import crop_face
from fer_jax.faces.detection import Face, Haar
from tfds_builders.mmi import mmi_dataset_builder as mmi
from tfds_builders.mmi import orientation


def face_in(image):
    """A detector that finds one face in the middle of every picture."""
    height, width = image.shape[:2]
    return [Face((width / 2 - 12, height / 2 - 12, 24.0, 24.0), 1.0)]


@pytest.fixture
def arrays(monkeypatch, use_detector):
    """Videos are arrays, and PyAV is not asked for."""
    monkeypatch.setattr(mmi.video, "read", fake_mmi.read_array)
    monkeypatch.setattr(mmi.video, "require", lambda name: None)
    use_detector(face_in)


def test_frontal_videos_with_one_of_six_emotions(arrays, tmp_path):
    fake_mmi.make(tmp_path / "files")
    builder = build("mmi", tmp_path / "files", tmp_path / "data", size=16)
    names = builder.info.features["label"].names
    assert names == list(labels.classes(7)[1:])
    found = examples(builder)
    assert {name: example["code"] for name, example in found.items()} == fake_mmi.LABELLED
    assert list(found) == list(fake_mmi.LABELLED)
    metadata = builder.info.metadata
    assert metadata["sessions"] == [1, 2, 17, 1800]
    for number, name, view, _, count in fake_mmi.SESSIONS:
        if name not in found:
            continue
        example = found[name]
        assert names[example["label"]] == labels.canonical("mmi", example["code"])
        assert example["session"] == number
        assert metadata["subjects"][example["subject"]] == name[:4]
        assert example["both_views"] == (view == 2)
        assert example["frames"].shape == (count, 16, 16, 3)
        assert example["frame_mask"].shape == (count,)
    photo = fake_mmi.frames("S001-001", 5)[4]
    crop = crop_face(photo, face_in(photo)[0], 16).image.astype(int)
    assert np.abs(found["S001-001"]["frames"][4] - crop).mean() < 4
    assert "8 sessions, 4 frontal videos with an emotion of 3 people" in builder.contents.found[0]
    said = "left out: 1 of stills, 1 of a profile, 1 without an emotion, 1 with an emotion above 6"
    assert builder.contents.found[1] == said


def test_each_nth_frame(arrays, tmp_path):
    fake_mmi.make(tmp_path / "files")
    found = examples(build("mmi", tmp_path / "files", tmp_path / "data", size=8, every=2))
    assert len(found["S001-001"]["frames"]) == 3
    assert len(found["S002-005"]["frames"]) == 1


def test_several_downloads_and_a_session_that_is_in_two(arrays, tmp_path):
    fake_mmi.make(tmp_path / "files" / "first", some=fake_mmi.SESSIONS[:3])
    root = fake_mmi.make(tmp_path / "files" / "second", some=fake_mmi.SESSIONS[3:])
    shutil.rmtree(root / "55")
    assert list(examples(build("mmi", tmp_path / "files", tmp_path / "data", size=8))) == list(fake_mmi.LABELLED)
    fake_mmi.make(tmp_path / "files" / "third", some=fake_mmi.SESSIONS[:1])
    assert "Sessions/1 has the same number as" in refusal("mmi", tmp_path / "files", tmp_path / "more")


def tall(image):
    """A detector that finds a face in pictures that are higher than wide, as those turned by 90 degrees are."""
    return face_in(image) if image.shape[0] > image.shape[1] else []


def test_a_video_is_turned_where_faces_are_found_only_so(arrays, tmp_path, use_detector):
    fake_mmi.make(tmp_path / "files")
    assert not examples(build("mmi", tmp_path / "files", tmp_path / "a", size=16))["S001-001"]["turned"]
    use_detector(tall)
    found = examples(build("mmi", tmp_path / "files", tmp_path / "b", size=16))["S001-001"]
    assert found["turned"]
    assert found["frame_mask"].all()
    photo = fake_pictures.Image.fromarray(fake_mmi.frames("S001-001", 5)[2]).transpose(
        fake_pictures.Image.Transpose.ROTATE_270  # counterclockwise
    )
    photo = np.asarray(photo)
    crop = crop_face(photo, face_in(photo)[0], 16).image.astype(int)
    assert np.abs(found["frames"][2] - crop).mean() < 4
    found = examples(build("mmi", tmp_path / "files", tmp_path / "b", size=16, rotate="never"))["S001-001"]
    assert not found["turned"]
    assert not found["frame_mask"].any()
    assert not found["frames"].any()
    found = examples(build("mmi", tmp_path / "files", tmp_path / "a", size=16, rotate="clockwise"))
    assert found["S001-001"]["turned"]
    assert not found["S001-002"]["turned"]  # both views


def test_the_half_with_the_frontal_face():
    image = np.zeros((20, 40, 3), np.uint8)
    for column, way in ((5, orientation.left_half), (35, orientation.right_half)):
        images = [image.copy() for _ in range(3)]
        for some in images[1:]:
            some[:, column] = 255
        seen = orientation.choose_transform(images, "auto", True, lambda part: face_in(part) if part.any() else [])
        assert seen is way
        assert seen(images[1]).shape == (20, 20, 3)
    # A detector that is fooled once does not turn the video.
    answers = iter([[], [], [], *[face_in(image)] * 3])  # upright three times, then turned
    assert orientation.choose_transform([image] * 3, "auto", False, lambda _: next(answers)) is orientation.clockwise
    answers = iter([face_in(image), face_in(image), [], face_in(image), [], []])
    assert orientation.choose_transform([image] * 3, "auto", False, lambda _: next(answers)) is orientation.upright


def test_gaps_may_be_accepted(arrays, tmp_path):
    root = fake_mmi.make(tmp_path / "files")
    (root / "1" / "S001-001.avi").unlink()
    (root / "2" / "session.xml").unlink()
    (root / "17" / "S002-005.xml").write_text("<AnnotationFile><Metatag")
    said = refusal("mmi", tmp_path / "files", tmp_path)
    assert "Sessions/1 holds neither a video nor pictures" in said
    assert "2/session.xml is not there: download the session again" in said
    assert "S002-005.xml is not XML (" in said
    builder = build("mmi", tmp_path / "files", tmp_path / "data", allow_missing=3, size=8)
    gaps = ("1", "2/session.xml", "17/S002-005.xml")
    assert list(examples(builder)) == ["S054-003"]
    assert builder.info.metadata["missing"] == [f"{root.parent.name}/Sessions/{gap}" for gap in gaps]


def test_mistakes_in_sessions(arrays, tmp_path):
    root = fake_mmi.make(tmp_path / "files")
    shutil.copy(root / "1" / "S001-001.avi", root / "1" / "S001-009.avi")
    (root / "2" / "session.xml").write_text('<session><track view="7" /></session>')
    (root / "17" / "session.xml").write_text("<session />")
    (root / "1767" / "S050-001.xml").write_text('<a><Metatag Name="Emotion" Value="joy" /></a>')
    (root / "1800" / "S054-003.avi").rename(root / "1800" / "видео.avi")
    said = refusal("mmi", tmp_path / "files", tmp_path)
    assert "Sessions/1 holds 2 videos" in said
    assert "2/session.xml has the view '7', and views are 0, 1 and 2" in said
    assert "17/session.xml has no track with a view" in said
    assert "S050-001.xml has the emotion 'joy', and codes are numbers from 1" in said
    assert "видео.avi is not named like MMI's videos" in said
    assert "--allow_missing" not in said


def test_folders_that_are_not_there(arrays, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mmi.zip").write_bytes(b"x")
    assert "has no Sessions/ of MMI: unpack mmi.zip there first" in refusal("mmi", tmp_path / "files", tmp_path)


def test_real_videos(tmp_path, use_detector):
    pytest.importorskip("av")
    use_detector(face_in)
    root = fake_mmi.make(tmp_path / "files", fake_mmi.write_video, some=fake_mmi.SESSIONS[:3])
    found = examples(build("mmi", tmp_path / "files", tmp_path / "data", size=16))
    example = found["S001-001"]
    assert example["frames"].shape == (5, 16, 16, 3)
    photo = fake_mmi.frames("S001-001", 5)[4]
    crop = crop_face(photo, face_in(photo)[0], 16).image.astype(int)
    assert np.abs(example["frames"][4] - crop).mean() < 12
    whole = (root / "1" / "S001-001.avi").read_bytes()
    (root / "1" / "S001-001.avi").write_bytes(whole[: whole.rindex(b"idx1") - 3000])
    fake_pictures.text(root / "2" / "S001-002.avi")
    fake_pictures.empty(root / "17" / "S002-005.avi")
    said = refusal("mmi", tmp_path / "files", tmp_path / "new")
    assert "3 problems" in said
    assert "S001-001.avi is damaged: " in said
    assert "S001-002.avi is not a video" in said
    assert "S002-005.avi is empty" in said
    assert "--allow_missing=3" in said


def test_the_cascades_know_how_a_real_face_lies(real_data):
    """A person as the videos show one: upright, lying on the side, and beside something else."""
    with fake_pictures.Image.open(real_data / "astronaut.png") as whole:
        person = np.asarray(whole.convert("RGB").crop((60, 0, 420, 288)))
    detector = Haar()
    lying = np.ascontiguousarray(np.rot90(person))
    assert orientation.choose_transform([person], "auto", False, detector) is orientation.upright
    chosen = orientation.choose_transform([lying], "auto", False, detector)
    np.testing.assert_array_equal(chosen(lying), person)
    blank = np.full_like(person, 90)
    for pair, half in (((person, blank), orientation.left_half), ((blank, person), orientation.right_half)):
        assert orientation.choose_transform([np.concatenate(pair, axis=1)], "auto", True, detector) is half
