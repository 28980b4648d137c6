"""Frames of videos that are written here: times, rotation, every n-th; whatever else a path may lead to; memory."""

import builtins
import os
import pathlib
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.faces import video

ROOT = pathlib.Path(__file__).resolve().parents[2]
COUNT, RATE = 25, 10
FORMATS = {  # file -> codec
    "a.mp4": "mpeg4",
    "a.avi": "mpeg4",
    "a.mkv": "mpeg4",
    "motion.avi": "mjpeg",
    "a.mpg": "mpeg2video",
    "a.ts": "mpeg2video",
}


def need_av():
    return pytest.importorskip("av", reason="needs PyAV: pip install 'fer_jax[video]'")


def level(k):
    """The gray level of frame k."""
    return 30 + 8 * (k % 25)


def write(path, codec="mpeg4", count=COUNT, rate=RATE, size=(64, 48), noise=0, **options):
    av = need_av()
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        for k in range(count):
            image = np.full((size[1], size[0], 3), level(k), np.uint8)
            image[: size[1] // 4, : size[0] // 4] = (255, 0, 0)  # top left is red
            if noise:
                image[size[1] // 2 :] = rng.integers(0, noise, (size[1] - size[1] // 2, size[0], 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def sound(path):
    av = need_av()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(frames):
    """Which frames these are, by their gray levels."""
    found = [(image[len(image) // 3, -1].mean() - level(0)) / 8 for _, image in frames]
    np.testing.assert_allclose(found, np.round(found), atol=0.4)
    return np.round(found).astype(int).tolist()


@pytest.mark.parametrize("name", FORMATS)
def test_frames_and_their_times(name, tmp_path):
    frames = list(video.read(write(tmp_path / name, FORMATS[name], rate=RATE if name[-2:] not in ("pg", "ts") else 25)))
    assert numbers(frames) == list(range(COUNT))
    rate = RATE if name[-2:] not in ("pg", "ts") else 25
    np.testing.assert_allclose([t for t, _ in frames], np.arange(COUNT) / rate, atol=1e-3)
    for _, image in frames:
        assert image.dtype == np.uint8
        assert image.shape == (48, 64, 3)
        assert image.flags.c_contiguous
    red = frames[3][1][4, 4].astype(int)
    assert red[0] > 180 > 80 > max(red[1:])


def test_every_nth_and_so_many_a_second(tmp_path):
    path = write(tmp_path / "a.mkv")  # 10 a second
    assert numbers(video.read(path, every=4)) == [0, 4, 8, 12, 16, 20, 24]
    assert numbers(video.read(path, fps=5)) == list(range(0, COUNT, 2))
    assert numbers(video.read(path, fps=4)) == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23]  # the first of every 250 ms
    assert numbers(video.read(path, fps=100)) == list(range(COUNT))  # no frame twice
    assert numbers(video.read(path, every=2, fps=2.5)) == [0, 4, 8, 12, 16, 20, 24]
    assert [t for t, _ in video.read(path, every=10)] == pytest.approx([0, 1, 2])
    for wrong in (0, -1, float("nan")):
        with pytest.raises(UserError, match=r"a\.mkv: .*give a number"):
            video.read(path, fps=wrong)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_the_camera_was_turned(tmp_path, quarters):
    """A phone stores pixels as its sensor has them, and a matrix, here of clockwise turns, that sets them upright."""
    data = bytearray(write(tmp_path / "a.mp4").read_bytes())
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    stored = [image for _, image in video.read(tmp_path / "a.mp4")]
    turned = [image for _, image in video.read(tmp_path / "turned.mp4")]
    for one, other in zip(stored, turned, strict=True):
        np.testing.assert_array_equal(other, np.rot90(one, -quarters))


def test_frames_are_decoded_as_they_are_asked_for(tmp_path):
    """What lies behind the frames that were taken is never read: it may be damaged."""
    path = write(tmp_path / "a.mp4", size=(320, 240), noise=255, movflags="faststart")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    frames: Any = video.read(path)
    assert next(frames)[0] == 0
    assert next(frames)[0] == pytest.approx(0.1)
    frames.close()


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "motion.avi"])
def test_a_video_cut_off_half_way(name, tmp_path):
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write(tmp_path / name, FORMATS[name], size=(320, 240), noise=255, **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    said = []
    frames = list(video.read(path, on_damage=said.append))
    assert 8 <= len(frames) < 20
    assert numbers(frames)[:7] == list(range(7))
    assert len(said) == 1
    assert f"{name} is damaged" in said[0]
    assert "\n" not in said[0]
    again = video.read(path)
    assert len([next(again) for _ in frames]) == len(frames)
    with pytest.raises(UserError, match=f"{name} is damaged.*download the file again"):
        next(again)


@pytest.mark.parametrize("name", ["a.mp4", "motion.avi"])
def test_a_hole_in_the_middle(name, tmp_path):
    path = write(tmp_path / name, FORMATS[name], size=(320, 240), noise=255)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + len(data) // 5] = bytes(len(data) // 5)
    path.write_bytes(data)
    said = []
    frames = list(video.read(path, on_damage=said.append))
    assert said
    assert 10 < len(frames) < COUNT
    assert numbers(frames[-3:]) == [COUNT - 3, COUNT - 2, COUNT - 1]  # behind the hole it goes on
    if name.endswith("mp4"):  # an AVI knows times by counting frames
        assert frames[-1][0] == pytest.approx((COUNT - 1) / RATE)


def test_paths_that_lead_to_no_video(tmp_path):
    need_av()
    write(tmp_path / "a.mp4", size=(320, 240), noise=255)  # its table of frames lies at the end
    cut = (tmp_path / "a.mp4").read_bytes()
    files = {
        "empty.mp4": b"",
        "cut.mp4": cut[: len(cut) // 2],
        "noise.mp4": np.random.default_rng(0).bytes(5000),
        "notes.txt": b"a line of text, and another\n" * 50,
        "page.html": b"<!DOCTYPE html><html><body>moved</body></html>" * 20,
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.mp4\n#EXT-X-ENDLIST\n",
        "list.ffconcat": b"ffconcat version 1.0\nfile a.mp4\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    sound(tmp_path / "sound.wav")
    import cv2

    for name in ("photo.png", "photo.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((20, 20, 3), np.uint8))
    messages = {name: "is not a video" for name in files} | {
        "empty.mp4": "is empty",
        "sound.wav": "no video",
        "photo.png": "is not a video",
        "photo.jpg": "is not a video",
        "absent.mp4": "no such file",
        ".": "is a folder",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=message) as error:
            video.read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_video_without_frames(tmp_path):
    path = write(tmp_path / "a.mp4", count=COUNT, size=(320, 240), noise=255, movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 12])
    with pytest.raises(UserError, match=r"a\.mp4.*no frame could be read"):
        list(video.read(path))


def test_without_pyav(tmp_path, monkeypatch):
    true_import = builtins.__import__

    def without(name, *rest):
        if name == "av" or name.startswith("av."):
            raise ImportError("No module named 'av'")
        return true_import(name, *rest)

    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"a\.mp4: .*pip install 'fer_jax\[video\]'"):
        video.read(tmp_path / "a.mp4")


TEN_MINUTES = """
import resource, sys
from fer_jax.faces import crops, detection, video

def everywhere(image):
    return [detection.Face((200 + image[300, 300, 0] % 40, 150, 160, 160), 1.0)]

count, last = 0, 0.0
for last, _, found in crops.faces_of_clip(video.read(sys.argv[1]), everywhere, 112):
    count += found
print(count, last, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_ten_minutes_take_less_than_a_gigabyte(tmp_path):
    """Held as a whole, the frames would take 5.5 GB."""
    path = write(tmp_path / "long.mp4", count=6000, rate=10, size=(640, 480))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", TEN_MINUTES, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, last, peak = done.stdout.split()
    assert int(found) == 6000
    assert float(last) == pytest.approx(599.9)
    assert int(peak) < 1e9
