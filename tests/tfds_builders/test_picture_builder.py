"""What all builders of picture files share: several processes, a build that was killed, options, the command line."""

import contextlib
import pathlib
import pickle
import signal
import subprocess
import sys
import time
from typing import Any

import cv2
import fake_pictures
import fake_rafdb
import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.faces import pictures
from fer_jax.faces.pictures import BadPicture
from tfds_builders import __main__ as command
from tfds_builders import registry, shards
from tfds_builders.picture_builder import PictureBuilder
from tfds_builders.rafdb import rafdb_dataset_builder as rafdb

NAMES = [n for n in registry.names() if issubclass(registry.builder_module(n).Builder, PictureBuilder)]
ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import fake_rafdb
from tfds_builders import __main__ as command, shards
from tfds_builders.rafdb import rafdb_dataset_builder as rafdb
shards.SHARD_EXAMPLES, shards.PARTS = 4, 1
if {slow}:
    import time
    encode = rafdb.Builder.encode
    rafdb.Builder.encode = lambda self, item: (time.sleep(0.3), encode(self, item))[1]
rafdb.COUNTS = fake_rafdb.COUNTS
folders = ["--manual_dir", {files!r}, "--data_dir", {data!r}]
sys.exit(command.main(["build", "rafdb", "--allow_counts", "--jobs={jobs}", *folders]))
"""


def start(files, data, slow, jobs=1):
    places = {"root": ROOT, "tests": ROOT / "tests" / "tfds_builders", "files": files, "data": data}
    code = BUILD.format(slow=slow, jobs=jobs, **{name: str(path) for name, path in places.items()})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], **pipes)


@pytest.mark.parametrize("name", NAMES)
def test_a_builder_is_known_to_tfds_and_reaches_other_processes(tmp_path, name):
    kind = registry.builder_module(name).Builder
    assert kind.name == name
    for variant in kind.VARIANTS:
        builder: Any = registry.make_builder(f"{name}/{variant}", str(tmp_path), allow_missing=2)
        if name != "image_folder":  # whose name TFDS has for one of its own
            assert tfds.builder(f"{name}/{variant}", data_dir=str(tmp_path)).data_path == builder.data_path
        assert builder.data_path == tmp_path / name / variant / "1.0.0"
        copy = pickle.loads(pickle.dumps(builder))
        assert type(copy) is kind
        assert copy.builder_config_name == variant
        assert (copy.options, copy.allow_missing) == (kind.VARIANTS[variant], 2)
        assert list(copy.info.features) == list(builder.info.features)
        assert "label" in copy.info.features


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


def children(pid):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_build_that_was_killed_goes_on(tmp_path):
    files, data = tmp_path / "files", tmp_path / "data"
    fake_rafdb.make(files)
    killed = start(files, data, slow=True)
    partial = data / "rafdb" / "basic" / ".1.0.0.partial"
    wait_for(lambda: len(list(partial.glob("train-????????.json"))) >= 2, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("train-????????")}
    assert len(kept) >= 2
    assert not (data / "rafdb" / "basic" / "1.0.0").exists()
    # One of the pictures behind the second shard changes: that shard is written again, the first is kept.
    fake_pictures.turned(files / "basic" / "Image" / "aligned" / "train_00006_aligned.jpg")
    again = start(files, data, slow=False)
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 0, said
    folder = data / "rafdb" / "basic" / "1.0.0"
    times = [path.stat().st_mtime_ns for path in sorted(folder.glob("rafdb-train*"))]
    assert times[0] == kept["train-00000000"]
    assert times[1] != kept["train-00000004"]
    assert not partial.exists()
    source: Any = tfds.data_source("rafdb/basic", split="train", data_dir=str(data))
    assert [e["name"].decode() for e in source] == [n for n, _ in fake_rafdb.names() if n.startswith("train")]


def test_processes_write_what_one_writes(tmp_path, monkeypatch):
    files = tmp_path / "files"
    fake_rafdb.make(files)
    monkeypatch.setattr(shards, "SHARD_EXAMPLES", 5)
    monkeypatch.setattr(shards, "PARTS", 1)
    monkeypatch.setattr(shards, "FEW", 0)
    monkeypatch.setattr(rafdb, "COUNTS", fake_rafdb.COUNTS)
    written = []
    for jobs in (1, 2):
        data = tmp_path / f"data{jobs}"
        assert (
            command.main(["build", "rafdb", f"--jobs={jobs}", "--manual_dir", str(files), "--data_dir", str(data)]) == 0
        )
        assert len(list(data.rglob("*.array_record*"))) == 5  # 12 and 7 examples in shards of 5
        sources = (tfds.data_source("rafdb/basic", split=split, data_dir=str(data)) for split in ("train", "test"))
        written.append([e for source in sources for e in source])
    for one, two in zip(*written, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


def test_workers_end_with_the_build_that_was_killed(tmp_path):
    """What is left of them would write into the files of the next build."""
    files, data = tmp_path / "files", tmp_path / "data"
    fake_rafdb.make(files, counts={"train": (40,) * 7, "test": (1,) * 7})
    killed = start(files, data, slow=True, jobs=2)
    partial = data / "rafdb" / "basic" / ".1.0.0.partial"
    wait_for(lambda: list(partial.glob("*.writing")), killed)
    workers = children(killed.pid)
    assert workers
    killed.kill()
    killed.wait()
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, workers))


def killed(*_):
    raise KeyboardInterrupt


def test_overwriting_keeps_what_is_there_until_all_is_whole(tmp_path, monkeypatch, capsys):
    files, data = tmp_path / "files", tmp_path / "data"
    root = fake_rafdb.make(files)
    monkeypatch.setattr(rafdb, "COUNTS", fake_rafdb.COUNTS)
    build = ["build", "rafdb", "--jobs=1", "--manual_dir", str(files), "--data_dir", str(data)]
    assert command.main(build) == 0
    fake_pictures.truncated(root / "Image" / "aligned" / "test_0003_aligned.jpg")
    assert command.main([*build, "--overwrite"]) == 2
    assert "test_0003_aligned.jpg is damaged" in capsys.readouterr().err
    assert len(tfds.data_source("rafdb/basic", split="test", data_dir=str(data))) == 7
    with monkeypatch.context() as now:
        now.setattr(rafdb.Builder, "_finish", killed)
        assert command.main([*build, "--overwrite", "--allow_missing=1"]) == 130
    assert len(tfds.data_source("rafdb/basic", split="test", data_dir=str(data))) == 7
    assert (data / "rafdb" / "basic" / ".1.0.0.partial").exists()
    assert command.main(build) == 0  # the old data stay
    assert not (data / "rafdb" / "basic" / ".1.0.0.partial").exists()
    assert command.main([*build, "--overwrite", "--allow_missing=1"]) == 0
    assert len(tfds.data_source("rafdb/basic", split="test", data_dir=str(data))) == 6
    assert [path.name for path in (data / "rafdb" / "basic").iterdir() if path.is_dir()] == ["1.0.0"]


def test_overwriting_what_is_drawn_keeps_it_until_all_is_whole(tmp_path, monkeypatch):
    build = ["build", "synthetic_faces", "--option=train=7", "--option=test=7", "--data_dir", str(tmp_path)]
    assert command.main(build) == 0
    builder: Any = registry.make_builder("synthetic_faces", str(tmp_path), train=7, test=7)
    before = builder.as_data_source("train")[0]

    with monkeypatch.context() as now:
        now.setattr(type(builder), "_generate_examples", killed)
        assert command.main([*build, "--overwrite"]) == 130
    assert command.main([*build, "--overwrite"]) == 0
    builder: Any = registry.make_builder("synthetic_faces", str(tmp_path), train=7, test=7)
    np.testing.assert_array_equal(builder.as_data_source("train")[0]["image"], before["image"])


def test_whatever_one_picture_leads_to_is_told_with_the_others(tmp_path, monkeypatch, capsys):
    root = fake_rafdb.make(tmp_path / "files")
    monkeypatch.setattr(rafdb, "COUNTS", fake_rafdb.COUNTS)
    fake_pictures.truncated(root / "Image" / "aligned" / "test_0003_aligned.jpg")
    encode = rafdb.Builder.encode

    def failing(self, item):
        if item.name.endswith("train_00002_aligned.jpg"):
            raise ZeroDivisionError("division by zero")
        return encode(self, item)

    folders = ["--manual_dir", str(tmp_path / "files"), "--data_dir", str(tmp_path / "data")]
    with monkeypatch.context() as now:
        now.setattr(rafdb.Builder, "encode", failing)
        assert command.main(["build", "rafdb", "--jobs=1", *folders]) == 2
    said = capsys.readouterr().err
    assert "2 problems" in said
    assert "train_00002_aligned.jpg cannot be stored (ZeroDivisionError: division by zero)" in said
    assert "test_0003_aligned.jpg is damaged" in said
    assert command.main(["build", "rafdb", "--jobs=1", "--allow_missing=1", *folders]) == 0  # what failed is read again


def test_a_disk_that_fills_up_at_the_end_loses_no_shard(tmp_path, monkeypatch, capsys):
    files, data = tmp_path / "files", tmp_path / "data"
    fake_rafdb.make(files)
    monkeypatch.setattr(rafdb, "COUNTS", fake_rafdb.COUNTS)
    build = ["build", "rafdb", "--jobs=1", "--manual_dir", str(files), "--data_dir", str(data)]

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr(tfds.core.DatasetInfo, "write_to_directory", full)
        assert command.main(build) == 2
    assert "No space left" in capsys.readouterr().err
    partial = data / "rafdb" / "basic" / ".1.0.0.partial"
    assert list(partial.glob("*-????????"))
    monkeypatch.setattr(shards, "write_shard", full)  # nothing is left to write
    assert command.main(build) == 0
    assert not partial.exists()


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path, capsys):
    data = ["--data_dir", str(tmp_path / "data")]
    for arguments, says in (
        (["rafdb", "--option=size"], "write --option=KEY=VALUE"),
        (["rafdb", "--option=sise=3"], "did you mean 'size'"),
        (["rafdb", "--option=size=big"], "must be of type int"),
        (["fer2013", "--option=size=3"], "fer2013 has no variants and no options"),
        (["synthetic_faces", "--allow_missing=3"], "--allow_missing does not apply to synthetic_faces"),
        (["rafdb", "--jobs=-1"], "--jobs=-1 is below 0"),
        (["rafdb", "--allow_missing=-1"], "--allow_missing=-1 is below 0"),
        (["rafdb", "--option=size=64"], "size and margin do not apply to aligned pictures"),
        (["rafdb", "--option=source=original"], "option size=0 must be from 1 to"),
        (["affectnet", "--option=margin=-0.7"], "option margin=-0.7 must be"),
        (["mmi", "--option=every=0"], "option every=0 must be 1 or more"),
        (["dfew", "--option=size=-1"], "option size=-1 must be from 1 to 1024, or 0 for pictures as they are"),
        (["oulu_casia", "--option=light=string"], "light='string' is not one of its values: did you mean 'strong'"),
        (["rafdb", "--manual_dir", str(tmp_path / "none")], "does not exist"),
    ):
        assert command.main(["build", *arguments, *data]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        assert says in printed
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_what_is_copied_and_what_is_converted(tmp_path):
    plain = fake_pictures.write(tmp_path / "a.jpg", 30, 20)
    stored = pictures.copied(plain, 3)
    assert (stored.data, stored.size, stored.notes) == (plain.read_bytes(), (20, 30), ())
    gray = pictures.copied(plain, 1)
    assert gray.data != plain.read_bytes()
    assert gray.notes == ("converted from RGB to gray",)
    bitmap = fake_pictures.write(tmp_path / "a.bmp", 30, 20)
    assert fake_pictures.Image.open(pictures.copied(bitmap, 3).file()).format == "PNG"
    foreign = fake_pictures.write(tmp_path / "лицо 顔.jpg", 30, 20)
    assert pictures.copied(foreign, 3).data == foreign.read_bytes()


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "1", "I;16", "CMYK"])
def test_unusual_modes(tmp_path, mode):
    image = fake_pictures.Image.fromarray(fake_pictures.pixels("x", 20, 20))
    gray = np.asarray(image.convert("L"))
    if mode == "I;16":
        image = fake_pictures.Image.fromarray(gray.astype(np.uint16) * 257)
    else:
        image = image.convert(mode, palette=fake_pictures.Image.Palette.ADAPTIVE)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    read, notes = pictures.pixels(path, 1)
    assert len(notes) == 1
    if mode != "1":
        assert np.abs(read[..., 0].astype(int) - gray).mean() < 8
    assert read.dtype == np.uint8


@pytest.mark.parametrize("kind", ["float.tiff", "16.tif", "16.png", "16.pgm"])
def test_white_is_what_the_format_says(tmp_path, kind):
    """A dark picture stays dark, however large its largest value is."""
    path = tmp_path / kind
    white = 1.0 if kind.startswith("float") else 65535
    shares = np.linspace(0, 0.25, 64).reshape(8, 8)
    values = (shares * white).astype(np.float32 if white == 1 else np.uint16)
    cv2.imwrite(str(path), values)
    read, notes = pictures.pixels(path, 1)
    np.testing.assert_allclose(read[..., 0], shares * 255, atol=0.51)
    assert len(notes) == 1
    cv2.imwrite(str(path), values // 16 if white > 1 else values / 16)  # 12 bits in 16
    assert "nearly black after conversion" in pictures.copied(path, 3).notes
    if white == 1:
        for wrong in (-0.1, 255.0, np.nan):
            values[0, 0] = wrong
            cv2.imwrite(str(path), values)
            with pytest.raises(BadPicture, match="its format goes from 0 to 1"):
                pictures.pixels(path, 1)


@pytest.mark.parametrize("ending", ["avif", "webp", "jfif", "jpe", "ppm", "bmp"])
def test_endings(tmp_path, ending):
    path = fake_pictures.write(tmp_path / f"a.{ending}", 96, 96)
    assert pictures.is_picture(path.name)
    assert np.abs(pictures.pixels(path, 3)[0].astype(int) - fake_pictures.pixels(path.name, 96, 96)).mean() < 8


def test_half_transparent_pixels_lie_on_white(tmp_path):
    fake_pictures.Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert (pictures.pixels(tmp_path / "x.png", 3)[0] == 255).all()


def test_a_folder_in_place_of_a_picture(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(BadPicture, match="is a folder"):
        pictures.copied(tmp_path / "x.jpg", 3)


def test_a_copied_picture_is_what_other_readers_of_tfds_take(tmp_path):
    """Files that Pillow calls RGB and others read with four channels, or with 16 bits."""
    rgb = fake_pictures.pixels("x", 8, 8)
    clear = tmp_path / "clear.png"
    fake_pictures.Image.fromarray(rgb).save(clear, transparency=(1, 2, 3))
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), rgb[..., ::-1].astype(np.uint16) * 257)
    for path, note in ((clear, "RGB with transparency"), (deep, "more than 8 bits")):
        stored = pictures.copied(path, 3)
        assert note in stored.notes[0]
        decoded = tfds.features.Image(shape=(8, 8, 3)).decode_example_np(stored.data)
        np.testing.assert_array_equal(decoded, rgb)
