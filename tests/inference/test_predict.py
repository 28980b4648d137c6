"""Predictions of faces in files: a row for each face in order, one program, and a table that continues after a kill."""

import contextlib
import csv
import itertools
import json
import types

import numpy as np
import pytest
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.faces.crops import Face
from fer_jax.faces.inputs import Input, Picture, find_inputs
from fer_jax.inference import predict as pipeline
from fer_jax.inference import predict_files
from fer_jax.inference.draw import annotated
from fer_jax.inference.predict import Crops, Reader, predict
from fer_jax.inference.table import Table

CLASSES = ("calm, mostly", 'so-called "joy"', "<b>fear</b>")  # names as a user may have them
SIZE = 16


def detector(image):
    """As many faces side by side as the picture's first red value says."""
    return [Face((20.0 * n + 1, 5.0, 16.0, 16.0), 1.0) for n in range(int(image[0, 0, 0]))]


def logits(faces):
    """The brighter a face, the more of the last class."""
    bright = faces.reshape(len(faces), -1).mean(axis=1) / 64
    return np.stack([np.zeros_like(bright), np.ones_like(bright), bright], axis=1).astype(np.float32)


def outputs(faces):
    """With a valence that says how bright a face is."""
    bright = faces.reshape(len(faces), -1).mean(axis=1) / 255
    return {"logits": logits(faces), "affect": np.stack([bright, np.zeros_like(bright)], axis=1).astype(np.float32)}


def reader(**changes):
    return Reader(**{"outputs": outputs, "classes": CLASSES, "crops": Crops(SIZE), "detector": detector} | changes)


def picture(faces, brightness=100):
    image = np.full((30, 100, 3), brightness, np.uint8)
    image[0, 0, 0] = faces
    return image


@pytest.fixture
def folder(tmp_path):
    """Photos with 2, 0, 1, 1 and 3 faces, one that is none and one that is cut off, in folders."""
    inside = tmp_path / "photos"
    (inside / "deeper").mkdir(parents=True)
    for number, faces in enumerate((2, 0, 1, 1, 3)):
        path = inside / ("deeper" if number > 2 else "") / f"{number}.png"
        Image.fromarray(picture(faces, 40 * number)).save(path)
    (inside / "1b ä.jpg").write_text("no picture")
    (inside / "1c.png").write_bytes((inside / "0.png").read_bytes()[:60])
    (inside / "notes.txt").write_text("left alone")
    return inside


def run(out, inputs, stop_after=None, **changes):
    """Writes the table of `inputs`; stops like a kill after some pictures."""
    table = Table(out, CLASSES, [source.name for source in inputs], {"model": changes.pop("model", "a")})
    for made, prediction in enumerate(predict(inputs[table.skipped :], reader(**changes))):
        if made == stop_after:
            return
        table.add(prediction.rows)
    table.close(finished=True)


def test_every_face_has_a_row_and_every_picture_without_one_too(folder, tmp_path):
    inputs = find_inputs([folder])
    run(tmp_path / "faces.csv", inputs)
    rows = list(csv.DictReader((tmp_path / "faces.csv").read_text().splitlines()))
    places = [(row["source"].removeprefix(f"{folder}/"), row["face"], row["status"].partition(":")[0]) for row in rows]
    assert places == [
        *(("0.png", "0", "ok"), ("0.png", "1", "ok"), ("1.png", "", "no_face"), ("1b ä.jpg", "", "unreadable")),
        *(("1c.png", "", "unreadable"), ("2.png", "0", "ok"), ("deeper/3.png", "0", "ok")),
        *(("deeper/4.png", str(n), "ok") for n in range(3)),
    ]
    assert float(rows[1]["x"]) == 21
    assert rows[-1]["expression"] == CLASSES[2]
    assert float(rows[-1][f"p_{CLASSES[2]}"]) == pytest.approx(float(rows[-1]["confidence"]))
    assert rows[2]["expression"] == rows[2][f"p_{CLASSES[0]}"] == rows[2]["valence"] == ""
    assert float(rows[-1]["valence"]) == pytest.approx(160 / 255, abs=0.01)


@pytest.mark.parametrize("name", ["faces.csv", "faces.jsonl"])
def test_a_table_continues_wherever_it_was_cut(folder, tmp_path, name):
    inputs, whole, cut = find_inputs([folder]), tmp_path / "whole" / name, tmp_path / name
    run(whole, inputs)
    for stop in (0, 2, 5, 6):
        cut.unlink(missing_ok=True)
        run(cut, inputs, stop_after=stop)
        written = cut.read_bytes()
        for lost in (0, 1, 40):  # a kill may cut the last row anywhere
            cut.write_bytes(written[: max(len(written) - lost, 0)])
            run(cut, inputs, stop_after=None)
            assert cut.read_bytes() == whole.read_bytes()
            origin = json.loads((tmp_path / f"{name}.origin.json").read_text())
            (tmp_path / f"{name}.origin.json").write_text(json.dumps(origin | {"finished": False}))
    assert Table(whole, CLASSES, [i.name for i in inputs], {"model": "a"}).finished


def test_drawings_survive_a_kill(folder, tmp_path, monkeypatch):
    """The pictures of a command that was killed and given again are those of one that was not."""
    model = types.SimpleNamespace(classes=CLASSES, card={"run": {"params_sha256": "1"}, "method": "baseline"})
    inputs = find_inputs([folder])
    for name, stops in (("whole", [99]), ("cut", [1, 4, 99])):
        for stop in stops:
            with monkeypatch.context() as killed:
                killed.setattr(
                    predict_files, "predict", lambda *given, stop=stop: itertools.islice(fail_after(stop, *given), 99)
                )
                with contextlib.suppress(KeyboardInterrupt):
                    predict_files.predict_files(
                        model, inputs, reader(), out=tmp_path / f"{name}.csv", draw=tmp_path / name
                    )
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    drawn = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.jpg"))
    assert len(drawn) == 5
    for path in drawn:
        assert (tmp_path / "cut" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def fail_after(count, inputs, given):
    for made, prediction in enumerate(predict(inputs, given)):
        if made == count:
            raise KeyboardInterrupt
        yield prediction


def test_a_table_of_something_else_is_left_alone(folder, tmp_path):
    inputs, out = find_inputs([folder]), tmp_path / "faces.csv"
    run(out, inputs)
    before = out.read_bytes()
    for given, model in ((inputs[:3], "a"), (inputs, "another")):
        with pytest.raises(UserError, match=r"faces\.csv .*another --out"):
            run(out, given, model=model)
    other = tmp_path / "mine.csv"
    other.write_text("my,own\n")
    with pytest.raises(UserError, match=r"mine\.csv"):
        run(other, inputs)
    assert (out.read_bytes(), other.read_text()) == (before, "my,own\n")


def test_a_table_has_one_writer(folder, tmp_path):
    inputs, out = [source.name for source in find_inputs([folder])], tmp_path / "faces.csv"
    table = Table(out, CLASSES, inputs, {"model": "a"})
    with pytest.raises(UserError, match=r"another process writes .*faces\.csv"):
        Table(out, CLASSES, inputs, {"model": "a"})
    table.close(finished=False)
    Table(out, CLASSES, inputs, {"model": "a"}).close(finished=True)


def test_a_row_that_is_cut_in_the_middle_of_a_table_is_refused(folder, tmp_path):
    inputs, out = find_inputs([folder]), tmp_path / "faces.csv"
    run(out, inputs, stop_after=5)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join([*lines[:2], lines[2][:9] + "\n", *lines[3:]]))
    with pytest.raises(UserError, match=r"faces\.csv is damaged"):
        run(out, inputs)


def test_rows_are_a_frame_of_pandas():
    pandas = pytest.importorskip("pandas")
    rows = [
        row
        for p in predict([Input("a", "photo", picture(2)), Input("b", "photo", picture(0))], reader())
        for row in p.rows
    ]
    frame = pandas.DataFrame(rows)
    assert list(frame.source) == ["a", "a", "b"]
    assert list(frame.status) == ["ok", "ok", "no_face"]
    assert frame.x[1] == 21


def test_one_shape_serves_all_faces(tmp_path):
    """No batch compiles a program of its own, and results do not depend on how faces fall into batches."""
    shapes = set()

    def counting(faces):
        shapes.add(faces.shape)
        return outputs(faces)

    inputs = [Input(f"{n}", "photo", picture(n % 4, 3 * n)) for n in range(60)]
    together = [row for p in predict(inputs, reader(outputs=counting)) for row in p.rows]
    assert shapes == {(pipeline.FACES_AT_ONCE, SIZE, SIZE, 3)}
    alone = [row for source in inputs for p in predict([source], reader()) for row in p.rows]
    assert together == alone


def test_large_pictures_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(pipeline, "PIXELS_WAITING", 5000)
    read = []

    def photos():
        for number in range(20):
            read.append(number)
            yield Input(str(number), "photo", picture(1))

    for made, _ in enumerate(predict(photos(), reader())):
        assert len(read) - made <= 3


def test_frames_are_tracked_and_smoothed_over_time(monkeypatch):
    """The average is p_t = s p_(t-1) + (1 - s) q_t along each track; a frame without a face keeps its row."""
    frames = [picture(1, 0), picture(1, 255), picture(0), picture(1, 255)]
    monkeypatch.setattr(
        pipeline, "read", lambda source, _: (Picture(source.path, f, n, n / 25) for n, f in enumerate(frames))
    )
    (plain, smooth) = (
        [row for p in predict([Input("a.mp4", "video")], reader(smoothing=s)) for row in p.rows] for s in (0.0, 0.75)
    )
    assert [row.frame for row in smooth] == [0, 1, 2, 3]
    assert [row.status for row in smooth] == ["ok", "ok", "no_face", "ok"]
    assert {row.track for row in smooth if row.status == "ok"} == {0}
    p = np.array(plain[0].probabilities)
    for n in (1, 3):
        p = 0.75 * p + 0.25 * np.array(plain[n].probabilities)
        np.testing.assert_allclose(smooth[n].probabilities, p, atol=1e-6)


def test_cropped_faces_are_not_searched_and_not_stretched():
    square = Input("square", "photo", picture(1)[:, :30])
    rows = [p.rows[0] for p in predict([square, Input("wide", "photo", picture(1))], reader(detector=None))]
    assert rows[0].status == "ok"
    assert rows[0].x is None
    assert rows[1].status.startswith("unreadable: has 100x30 pixels")


def test_a_clip_has_one_row_with_the_weight_of_every_frame(monkeypatch):
    frames = [picture(1), picture(0), picture(2)]
    monkeypatch.setattr(
        pipeline, "read", lambda source, _: (Picture(source.path, f, n, n / 25) for n, f in enumerate(frames))
    )

    def clip_logits(faces, mask):
        assert faces.shape == (3, SIZE, SIZE, 3)
        assert not faces[1].any()
        return logits(faces)[0], mask / mask.sum()

    (prediction,) = predict([Input("a.mp4", "video")], reader(clip_logits=clip_logits))
    (row,) = prediction.rows
    assert row.status == "ok"
    assert row.frame_weights == (0.5, 0, 0.5)


def test_unsure_faces_are_below_the_threshold():
    rows = [p.rows[0] for p in predict([Input("a", "photo", picture(1, b)) for b in (0, 255)], reader(threshold=0.6))]
    assert [row.unsure for row in rows] == [True, False]


def test_boxes_and_labels_are_drawn_where_the_faces_are():
    image = np.full((120, 160, 3), 200, np.uint8)
    faces = [Face((30.0, 40.0, 50.0, 60.0), 1.0)]
    (prediction,) = predict([Input("a", "photo", image)], reader(detector=lambda _: faces))
    drawn = annotated(image, prediction.rows, CLASSES)
    changed = np.argwhere((drawn != image).any(axis=-1))
    box = changed[changed[:, 0] > 50]  # below the label
    assert (box.min(axis=0)[1], *box.max(axis=0)) == (30, 100, 80)
    assert (drawn[60:90, 40:70] == image[60:90, 40:70]).all()


def test_inputs_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no file .*absent\.png"):
        find_inputs([tmp_path / "absent.png"])
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match="no photo and no video"):
        find_inputs([tmp_path])


def test_what_was_drawn_is_no_input(folder):
    drawn = folder / "drawn"
    drawn.mkdir()
    Image.fromarray(picture(1)).save(drawn / "0.png.jpg")
    assert len(find_inputs([folder], drawn=drawn)) == len(find_inputs([folder])) - 1
    with pytest.raises(UserError, match="path of an input is empty"):
        find_inputs([""])
