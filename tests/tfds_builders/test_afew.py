"""AFEW's builder: videos in which a face is followed, the organisers' faces, and what is wrong with copies."""

import importlib.util
from typing import Any

import cv2
import fake_afew
import fake_pictures
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import build, refusal

from fer_jax import labels
from fer_jax.data.sources import clips
from fer_jax.errors import UserError
from fer_jax.faces.detection import Face, Haar
from tfds_builders.afew import afew_dataset_builder as afew

PYAV = importlib.util.find_spec("av") is not None


def detect(image):
    """Finds the face of a fake frame: where its corner is white."""
    return [Face(fake_afew.FACE, 1.0)] if image[2:6, 2:6].mean() > 250 else []


def read_with_opencv(path, *, every=1, on_damage=None):
    """Stands for `video.read` where PyAV is not installed."""
    reader = cv2.VideoCapture(str(path))
    number, (there, image) = 0, reader.read()
    if not there:
        raise UserError(f"{path} is not a video; get the file anew")
    while there:
        if number % every == 0:
            yield number / fake_afew.RATE, np.ascontiguousarray(image[..., ::-1])
        number, (there, image) = number + 1, reader.read()


@pytest.fixture(autouse=True)
def small(monkeypatch, use_detector):
    monkeypatch.setattr(afew, "COUNTS", fake_afew.COUNTS)
    use_detector(detect)
    monkeypatch.setattr(afew, "MOST_LOST", 0.2)
    if not PYAV:
        monkeypatch.setattr(afew.video, "read", read_with_opencv)
        monkeypatch.setattr(afew.video, "require", lambda name: None)


def stacked(source):
    """The examples; TFDS returns the frames of a clip as a list."""
    return [{**example, "frames": np.stack(example["frames"])} for example in source]


def test_videos_become_faces_in_their_places(tmp_path):
    fake_afew.make(tmp_path / "files", aligned=False)
    (tmp_path / "files" / "Test_AFEW").mkdir()
    builder = build("afew", tmp_path / "files", tmp_path / "data", size=32)
    assert builder.info.features["label"].names == list(labels.EMOTIONS[:7])
    assert builder.info.metadata["complete"]
    for split in fake_afew.COUNTS:
        source: Any = tfds.data_source("afew/videos-size32", split=split, data_dir=str(tmp_path / "data"))
        wanted = fake_afew.clips(split)
        assert [(e["name"].decode(), e["code"].decode()) for e in source] == wanted
        assert [e["label"] for e in source] == [
            labels.EMOTIONS.index(labels.canonical("afew", code)) for _, code in wanted
        ]
        for place, example in enumerate(stacked(source)):
            lost = (split, place) == fake_afew.NO_FACE
            assert example["frames"].shape == (3, 32, 32, 3)
            np.testing.assert_array_equal(example["frame_mask"], [not lost, False, not lost])
            assert not example["frames"][~example["frame_mask"]].any()
            if not lost:
                middles = example["frames"][[0, 2], 16, 16].mean(axis=-1)
                np.testing.assert_allclose(middles, np.array(fake_afew.LEVELS)[[0, 2]], atol=4)
    said = "\n".join((*builder.contents.found, *builder.contents.warnings))
    assert "Test_AFEW: not used" in said
    assert f"{fake_afew.clips('train')[2][0]}.avi: no face found" in said


def test_a_true_face_is_followed(tmp_path, real_data, use_detector):
    fake_afew.make(tmp_path / "files", aligned=False)
    clip, code = fake_afew.clips("validation")[0]
    photo = np.asarray(fake_pictures.Image.open(real_data / "astronaut.png").convert("RGB").resize((256, 256)))
    moved = np.roll(photo, 6, axis=1)
    path = tmp_path / "files" / "Val_AFEW" / code / f"{clip}.avi"
    fake_afew.write_video(path, [photo, moved, np.zeros_like(photo), moved])
    use_detector(Haar())
    example = stacked(build("afew", tmp_path / "files", tmp_path / "data", size=64).as_data_source("validation"))[0]
    np.testing.assert_array_equal(example["frame_mask"], [True, True, False, True])
    first, _, _, last = example["frames"].astype(int)
    assert np.abs(first - last).mean() < 12  # the crop has followed the face
    assert first[20:44, 20:44].mean() > 100


@pytest.mark.parametrize("doubled", [False, True])
def test_aligned_faces_have_the_class_of_their_video_and_the_order_of_their_numbers(tmp_path, doubled):
    fake_afew.make(tmp_path / "files", doubled)
    builder = build("afew/aligned", tmp_path / "files", tmp_path / "data")
    source = builder.as_data_source("train")
    assert [(e["name"].decode(), e["code"].decode()) for e in source] == fake_afew.clips("train")
    lost = fake_afew.NO_FACE[1]
    for place, example in enumerate(stacked(source)):
        if place == lost:  # kept, so that it is scored
            np.testing.assert_array_equal(example["frame_mask"], [False])
            np.testing.assert_array_equal(example["frames"], np.zeros((1, 128, 128, 3)))
        else:
            np.testing.assert_array_equal(example["frame_mask"], [True] * 3)
            np.testing.assert_allclose(example["frames"].mean(axis=(1, 2, 3)), [20, 40, 200], atol=1)
    name = fake_afew.clips("train")[lost][0]
    assert any(f"no faces of 1 of 8 clips ({name})" in line for line in builder.contents.warnings)


def test_a_single_frame_and_resized_ones_reach_the_harness(tmp_path):
    fake_afew.make(tmp_path / "files")
    builder = build("afew/aligned", tmp_path / "files", tmp_path / "data", size=20, every=3)
    examples = stacked(builder.as_data_source("validation"))
    assert {e["frames"].shape for e in examples} == {(1, 20, 20, 3)}
    fields = {key: np.concatenate([e[key] for e in examples]) for key in ("frames", "frame_mask")}
    arrays, frames = clips.separate(fields | {"length": np.array([len(e["frames"]) for e in examples])})
    np.testing.assert_array_equal(arrays["start"], np.arange(7))
    assert frames["frame_mask"].all()


def test_folders_of_faces_that_fit_no_video_or_are_too_few(tmp_path):
    fake_afew.make(tmp_path / "files")
    faces = tmp_path / "files" / "Train_AFEW" / fake_afew.ARCHIVES["train"] / "Faces"
    fake_pictures.write(faces / "999999999" / "1.jpg", 128, 128)
    name = fake_afew.clips("train")[0][0]
    (faces / name / "2.jpg").rename(faces / name / "two.jpg")
    fake_pictures.write(faces / fake_afew.clips("train")[1][0] / "01.jpg", 128, 128)
    said = refusal("afew/aligned", tmp_path / "files", tmp_path)
    assert "Faces/999999999 is not in the folders of videos" in said
    assert f"Faces/{name}/two.jpg has no number in its name" in said
    assert "1.jpg has the number of 01.jpg beside it" in said
    faces.rename(faces.with_name("Gone"))
    said = refusal("afew/aligned", tmp_path / "files", tmp_path)
    assert "Train_AFEW has no Faces of AFEW's aligned faces" in said
    (faces / name).mkdir(parents=True)
    said = refusal("afew/aligned", tmp_path / "files", tmp_path)
    assert "Faces has no faces of 8 of 8 clips" in said
    assert "--allow_counts" in said


def test_frames_of_another_edition(tmp_path):
    fake_afew.make(tmp_path / "files")
    name = fake_afew.clips("validation")[0][0]
    faces = tmp_path / "files" / "Val_AFEW" / fake_afew.ARCHIVES["validation"] / "Faces"
    fake_pictures.write(faces / name / "2.jpg", 112, 128)
    for size in (0, 64):
        said = refusal("afew/aligned", tmp_path / "files", tmp_path, size=size)
        assert "frame 2.jpg has 112x128 pixels, and this edition 128x128" in said


def test_videos_that_do_not_decode(tmp_path):
    fake_afew.make(tmp_path / "files", aligned=False)
    clip, code = fake_afew.clips("train")[0]
    path = tmp_path / "files" / "Train_AFEW" / code / f"{clip}.avi"
    fake_pictures.text(path)
    said = refusal("afew", tmp_path / "files", tmp_path)
    assert f"{path} is not a video" in said
    assert f"{path} {path}" not in said
    builder = build("afew", tmp_path / "files", tmp_path / "data", allow_missing=1)
    assert builder.info.metadata["missing"] == [f"Train_AFEW/{code}/{clip}.avi"]
    assert len(builder.as_data_source("train")) == 7


@pytest.mark.skipif(not PYAV, reason="needs PyAV")
def test_a_video_that_is_cut_off_is_used_as_far_as_it_goes_and_said(tmp_path):
    fake_afew.make(tmp_path / "files", aligned=False)
    clip, code = fake_afew.clips("train")[0]
    path = tmp_path / "files" / "Train_AFEW" / code / f"{clip}.avi"
    fake_afew.write_video(path, fake_afew.frames("train", 0) * 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    builder = build("afew", tmp_path / "files", tmp_path / "data", size=32)
    assert 5 < len(builder.as_data_source("train")[0]["frames"]) < 25
    assert any(f"{clip}.avi: is damaged" in line for line in builder.contents.warnings)


def test_one_name_of_two_videos(tmp_path):
    fake_afew.make(tmp_path / "files")
    train = tmp_path / "files" / "Train_AFEW"
    clip = next(clip for clip, code in fake_afew.clips("train") if code == "Fear")
    fake_afew.write_video(train / "Sad" / f"{clip}.avi", fake_afew.frames("train", 0)[:2])
    assert "2 instead of 1 sadness" in refusal("afew", tmp_path / "files", tmp_path)  # another clip of the same time
    assert f"have the same name, and {train}" in refusal("afew/aligned", tmp_path / "files", tmp_path)
