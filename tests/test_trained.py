"""A trained model without its training data: loaded, moved, damaged, and scored on another data set."""

import csv
import dataclasses
import json
import pickle
import shutil
import struct

import numpy as np
import pytest
from etils import epath
from PIL import Image

import fer_jax
from fer_jax import cli
from fer_jax.data.sources.source import load
from fer_jax.errors import UserError
from fer_jax.evaluation import matching
from fer_jax.inference import explain, export
from fer_jax.inference.evaluate import evaluate
from fer_jax.labels import COMPOUND_EMOTIONS
from fer_jax.report.looking import looking
from fer_jax.runs.model_file import MODEL, read_model, write_model
from fer_jax.training import loop

ONE_DEVICE = {"train.devices": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def tiny(tiny):
    """The same at a size of which the last map still has places, for explanations."""

    def make(*arguments, **train):
        config = tiny(*arguments, **train)
        config.data.image_size = 48
        return config

    return make


@pytest.fixture
def finished(run, tiny):
    """The folder of a finished run."""
    if not (run / "results.json").exists():
        loop.train(tiny(max_steps=4), run)
    return run


def table(path):
    return list(csv.DictReader((path / "predictions.csv").read_text(encoding="utf-8").splitlines()))


def test_it_loads_without_the_data_and_predicts_what_evaluation_does(finished, tiny, tmp_path, monkeypatch):
    test = load(tiny().data, "test", training=False)
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished, moved)
    shutil.rmtree(moved / "checkpoints")
    (moved / "config.json").unlink()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no data"))
    monkeypatch.setattr("fer_jax.data.sources.source.prepared_builder", lambda *_: pytest.fail("it read the data set"))
    model = fer_jax.load(moved)
    assert model.classes == test.classes
    assert model.card["scores"]["accuracy"] == json.loads((moved / "results.json").read_text())["accuracy"]
    logits = model.logits(test.arrays["image"])
    np.testing.assert_allclose(logits, model.logits(test), atol=1e-5)
    rows = model.predict(test.arrays["image"])
    assert [row.expression for row in rows] == [test.classes[n] for n in logits.argmax(axis=1)]
    assert sum(rows[3].probabilities) == pytest.approx(1)
    written = table(finished)
    assert [row["expression"] for row in written] == [row.expression for row in rows]
    assert float(written[5][f"p_{test.classes[2]}"]) == pytest.approx(rows[5].probabilities[2], abs=1e-5)


def test_it_finds_the_faces_of_photos(finished, real_data, tmp_path, monkeypatch):
    photo, yunet = real_data / "astronaut.png", str(real_data / "yunet" / "face_detection_yunet_2023mar.onnx")
    model = fer_jax.load(finished)
    (row,) = model.predict(photo, yunet=yunet)
    assert (row.status, row.source) == ("ok", str(photo))
    assert (row.x, row.y) == pytest.approx((178, 63), abs=3)
    image = np.asarray(Image.open(photo).convert("RGB"))
    (same,) = model.predict(image, yunet=yunet)
    assert same.probabilities == row.probabilities
    (tmp_path / "broken.png").write_text("no picture")
    rows = model.predict([photo, tmp_path / "broken.png"], yunet=yunet)
    assert [r.status.partition(":")[0] for r in rows] == ["ok", "unreadable"]
    card = model.card | {"unsure": {"threshold": 1.01}}
    (unsure,) = dataclasses.replace(model, card=card).predict(photo, yunet=yunet)
    assert unsure.unsure is True
    with pytest.raises(UserError, match="array of uint8"):
        model.predict([image])
    for crop in ({"by": "box", "margin": 0.2}, {"by": "points", "margin": -0.1}):  # as the builder has recorded it
        crops = dataclasses.replace(model, card=model.card | {"crop": crop}).reader(None).crops
        assert (crops.by_box, crops.margin) == (crop["by"] == "box", crop["margin"])

    monkeypatch.chdir(tmp_path)
    options = [f"--model={finished}", f"--yunet={yunet}", "--out=faces.csv", "--draw=drawn"]
    assert cli.main(["predict", str(photo), *options]) == 0
    (written,) = csv.DictReader((tmp_path / "faces.csv").read_text().splitlines())
    assert float(written["confidence"]) == pytest.approx(row.confidence, abs=1e-5)
    assert Image.open(next((tmp_path / "drawn").rglob("*.jpg"))).size == (512, 512)
    assert cli.main(["--mode=predict", f"--input={tmp_path / 'absent.png'}", f"--model={finished}"]) == 2


def test_an_exported_model_predicts_what_the_model_does(finished, tmp_path):
    """One program for any number of faces, with names and preprocessing inside."""
    model, path = fer_jax.load(finished), tmp_path / "faces.stablehlo.zip"
    assert cli.main(["export", f"--model={finished}", f"--out={path}"]) == 0
    function, card = export.read_stablehlo(path)
    assert tuple(card["classes"]) == model.classes
    for count in (1, 5):
        faces = np.random.default_rng(count).integers(0, 256, (count, *card["data"]["picture"])).astype(np.uint8)
        expected = [row.probabilities for row in model.predict(faces)]
        np.testing.assert_allclose(function(faces), expected, atol=1e-5)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"faces\.stablehlo\.zip is not an exported"):
        export.read_stablehlo(path)


def test_the_map_of_a_linear_classifier_sums_to_its_logit(finished):
    """The baseline's features are the mean of its last map: there the class-activation map is exact."""
    model = fer_jax.load(finished)
    faces = np.random.default_rng(0).integers(0, 256, (3, *model.card["data"]["picture"])).astype(np.uint8)
    classes = np.array([2, 0, 6])
    bias = np.asarray(model.variables["params"]["classifier"]["bias"])
    batch = explain._batch(model.source_of(faces), np.arange(3))
    task = model.task_for(faces.shape[1:]).at_size(48)  # the last map is 2x2
    last = explain._last_map(task, model.placed, batch)
    maps, logits = explain._relevance(task, "cam", last, model.placed, batch, classes)
    assert maps.shape[1] > 1
    expected = np.asarray(logits)[np.arange(3), classes] - bias[classes]
    np.testing.assert_allclose(np.asarray(maps).sum(axis=(1, 2)), expected, atol=1e-5)
    found = explain.explain(model, faces, classes)
    assert found.maps.shape == faces.shape[:3]
    many = np.concatenate([faces] * 12)  # more than a batch
    np.testing.assert_allclose(explain.explain(model, many, np.tile(classes, 12)).maps[-3:], found.maps, atol=1e-5)
    predicted = explain.explain(model, faces, kind="gradcam")
    np.testing.assert_array_equal(predicted.classes, model.logits(faces).argmax(axis=1))
    assert predicted.maps.min() >= 0
    rows = model.explain(faces, kind="gradcam")
    np.testing.assert_array_equal([one.map for one in rows], predicted.maps)
    assert [one.row for one in rows] == model.predict(faces)
    with pytest.raises(UserError, match="baseline has no attention over places or frames"):
        model.explain(faces, kind="attention")


def test_the_report_shows_where_the_model_looks(finished, tiny):
    model, test = fer_jax.load(finished), load(tiny().data, "test", training=False)
    looks = explain.look(model.task, model.mesh, model.placed, matching.whole(test))
    np.testing.assert_array_equal(np.bincount(looks.labels), 4)
    np.testing.assert_allclose(looks.maps, explain.explain(model, looks.faces, looks.labels, "detail").maps, atol=1e-5)
    drawn = explain.class_maps(model.task, model.mesh, model.placed, model.source_of(looks.faces), looks.labels)
    assert drawn is not None
    assert drawn[0].shape[1:] == (6, 6)
    assert set(looks.scores) == {"pointing_game", "relevance_mass", "relevance_rank", "region_cosine", "area"}
    page = looking(looks)
    assert page.count("<img") == 7 * (2 * 2 + 1)
    assert "Random maps" in page


def test_photos_are_explained_in_a_folder(finished, real_data, tmp_path):
    photo, yunet = real_data / "astronaut.png", real_data / "yunet" / "face_detection_yunet_2023mar.onnx"
    out = tmp_path / "maps"
    assert cli.main(["explain", str(photo), f"--model={finished}", f"--yunet={yunet}", f"--out={out}"]) == 0
    (one,) = fer_jax.load(finished).explain(photo, yunet=yunet)
    assert one.row == fer_jax.load(finished).predict(photo, yunet=yunet)[0]
    with np.load(out / "explanations.npz") as arrays:
        np.testing.assert_array_equal(arrays["faces"][0], one.face)
        np.testing.assert_allclose(arrays["maps"][0], one.map, atol=1e-6)
    assert len(list(out.rglob("*.png"))) == 1
    blank = tmp_path / "blank.png"
    Image.new("RGB", (200, 200)).save(blank)
    assert cli.main(["explain", "camera:0", f"--model={finished}", f"--out={out}"]) == 2
    assert cli.main(["explain", str(blank), f"--model={finished}", f"--yunet={yunet}", f"--out={out}"]) == 2


def test_an_export_that_differs_is_not_written(finished, tmp_path, monkeypatch):
    model, path = fer_jax.load(finished), tmp_path / "faces.stablehlo.zip"
    monkeypatch.setattr(export, "_probabilities", lambda model, faces: np.full((len(faces), 7), 0.5))
    with pytest.raises(UserError, match="not written"):
        export.export(model, "stablehlo", path)
    assert not path.exists()


def test_runs_are_compared_on_one_page(finished, tmp_path):
    other, out = tmp_path / "<b>other</b>", tmp_path / "comparison"
    shutil.copytree(finished, other)
    head, *lines = (line.split(",") for line in (other / "predictions.csv").read_text().splitlines())
    for line in lines:
        line[head.index("expression")] = line[head.index("truth")]

    def write(rows):
        (other / "predictions.csv").write_text("\n".join(map(",".join, rows)) + "\n")

    write([head, *lines])
    assert cli.main(["compare", str(finished), str(other), f"--out={out}"]) == 0
    first, _ = csv.DictReader((out / "scores.csv").read_text().splitlines())
    accuracy, _ = csv.DictReader((out / "differences.csv").read_text().splitlines())
    assert float(accuracy["difference"]) == pytest.approx(1 - float(first["accuracy"]), abs=1e-6)
    page = (out / "index.html").read_text()
    assert "&lt;b&gt;other&lt;/b&gt;" in page
    assert "<b>other" not in page
    write([head, *lines[:-1]])  # scored on other examples: not paired
    assert cli.main(["compare", str(finished), str(other), f"--out={out}"]) == 0
    assert len((out / "differences.csv").read_text().splitlines()) == 1
    assert cli.main(["compare", str(finished)]) == 2


def test_runs_are_listed_with_their_state(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "runs" / "fdrl" / "done")
    shutil.copytree(finished, tmp_path / "runs" / "half", ignore=shutil.ignore_patterns("results.json"))
    assert cli.main(["runs", str(tmp_path / "runs")]) == 0
    done, half, _ = capsys.readouterr().out.splitlines()
    accuracy = json.loads((finished / "results.json").read_text())["accuracy"]
    assert done.split()[:2] == ["fdrl/done", "finished"]
    assert f"{100 * accuracy:.1f}" in done
    assert half.split() == ["half", "at", "step", "4"]
    assert "fdrl/done" in (tmp_path / "runs" / "index.html").read_text()
    assert cli.main(["runs", str(tmp_path / "nothing")]) == 2


def test_the_prediction_table_holds_every_example(finished, results_of):
    rows, results = table(finished), results_of(finished)
    columns = "source,row,frame,time,face,x,y,width,height,track,truth,expression,confidence,entropy"
    assert ",".join(rows[0]).startswith(f"{columns},unsure,valence,arousal,status,p_")
    assert [int(row["row"]) for row in rows] == list(range(results["num_examples"]))
    assert np.mean([row["truth"] == row["expression"] for row in rows]) == pytest.approx(results["accuracy"])
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["source"] for row in rows} == {"synthetic_faces/basic:test"}


def test_an_unfinished_run_loads_once_it_has_saved(finished, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("fer_jax.training.results.finish", lambda *_: None)
    unfinished = epath.Path(tmp_path / "run")
    loop.train(tiny(max_steps=4), unfinished)
    faces = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    np.testing.assert_allclose(fer_jax.load(unfinished).logits(faces), fer_jax.load(finished).logits(faces), atol=1e-5)


def test_faces_of_every_form(finished):
    model = fer_jax.load(finished / MODEL)
    gray = np.random.default_rng(1).integers(0, 256, (2, 48, 48)).astype(np.uint8)
    first = model.logits(gray)
    np.testing.assert_array_equal(first, model.logits(gray[..., None]))
    np.testing.assert_allclose(first, model.logits(np.repeat(gray[..., None], 3, axis=-1)), atol=1e-4)
    for wrong, says in (
        (gray.astype(np.float32), "give uint8"),
        (gray[:0], "cropped faces"),
        ("absent.jpg", "absent.jpg"),
    ):
        with pytest.raises(UserError) as caught:
            model.predict(wrong)
        assert says in str(caught.value)


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def weights_alone(data):
    del data
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (cut, "incomplete or damaged"),
        (flipped, "incomplete or damaged"),
        (lambda data: data.replace(b"happiness", b"happinezz"), "incomplete or damaged"),
        (weights_alone, "does not say of which model.*config.init_from"),
        (lambda data: pickle.dumps([print]), "not a model file.*pickle"),
        (lambda data: b"<!DOCTYPE html><html>404</html>", "not a model file.*web page"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not a model file.*git lfs pull"),
        (lambda data: b"", "not a model file.*empty"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(change, says, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("it unpickled"))
    path = epath.Path(tmp_path / "m.safetensors")
    path.write_bytes(change((finished / MODEL).read_bytes()))
    with pytest.raises(UserError, match=says) as caught:
        fer_jax.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "of_tomorrow"}, "the method 'of_tomorrow', which is not installed"),
        ({"objective": "mixup+of_tomorrow"}, "the strategy 'of_tomorrow', which is not installed"),
        ({"format": 9, "versions": {"fer_jax": "7.1"}}, "format 9.* fer_jax 7.1"),
    ],
)
def test_a_model_of_another_version_names_it(change, says, finished, tmp_path, monkeypatch):
    variables, card = read_model(finished / MODEL)
    monkeypatch.setattr("fer_jax.runs.model_file.FORMAT", change.get("format", 1))
    path = epath.Path(tmp_path / "m.safetensors")
    write_model(path, variables, card | change)
    monkeypatch.undo()
    with pytest.raises(UserError, match=says):
        fer_jax.load(path)


def test_what_holds_no_model_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no model file and no run"):
        fer_jax.load(tmp_path / "nothing")
    with pytest.raises(UserError, match=f"holds no {MODEL}: give the folder of one run, .* delete results.json"):
        fer_jax.load(tmp_path)


def predicting(classes):
    """Stands for a model: it predicts class n for pictures whose first pixel is n."""

    def outputs(_, __, source):
        return {"logits": 5 * np.eye(len(classes), dtype=np.float32)[source.arrays["image"][:, 0, 0, 0]]}

    return outputs


def test_another_data_set_is_scored_on_the_classes_in_common(finished, tiny, monkeypatch, capsys):
    """Eight examples of classes of other names and order, among them one that the model does not know."""
    model_classes = fer_jax.load(finished).classes
    names = ("Happy", "contempt", "SU", "anger")
    label = np.array([0, 0, 0, 1, 2, 2, 3, 3], np.int32)
    told = ["happiness", "happiness", "surprise", "anger", "surprise", "happiness", "anger", "anger"]
    picture = np.array([model_classes.index(name) for name in told], np.uint8)
    test = load(tiny().data, "test", training=False)
    other = dataclasses.replace(
        test.select(np.arange(8)),
        name="synthetic_faces/compound",
        classes=names,
        arrays={
            "image": np.broadcast_to(picture[:, None, None, None], (8, 4, 4, 1)),
            "label": label,
            "target": np.eye(4, dtype=np.float32)[label],
            "index": np.arange(8, dtype=np.int32),
        },
    )
    monkeypatch.setattr("fer_jax.inference.evaluate.load", lambda *_, **__: other)
    monkeypatch.setattr("fer_jax.evaluation.evaluate.Evaluator.__call__", predicting(model_classes))
    results = evaluate(finished, dataset="synthetic_faces/basic", changes=ONE_DEVICE)
    order = [name for name in model_classes if name in ("happiness", "surprise", "anger")]
    assert results["classes"] == order
    expected = np.zeros((3, 3), int)
    for truth, found in zip(["happiness"] * 3 + ["surprise"] * 2 + ["anger"] * 2, told[:3] + told[4:], strict=True):
        expected[order.index(truth), order.index(found)] += 1
    assert results["confusion"] == expected.tolist()
    assert results["num_examples"] == 7
    assert results["left_out"]["data"] == {"contempt": 1}
    assert results["left_out"]["model"] == [name for name in model_classes if name not in order]
    assert "left out of the score: examples of classes that the model does not know (1 of contempt)" in (
        capsys.readouterr().out
    )
    folder = finished / "evaluation-synthetic_faces_basic-test"
    assert json.loads((folder / "results.json").read_text()) == results
    assert [row["truth"] for row in table(folder)] == ["happiness"] * 3 + ["surprise"] * 2 + ["anger"] * 2


def test_compound_expressions_are_read_from_basic_ones(finished):
    results = evaluate(finished, dataset="synthetic_faces/compound", changes=ONE_DEVICE)
    assert results["classes"] == list(COMPOUND_EMOTIONS)
    assert "left_out" not in results
    assert "a basic one where no pair scores above" in results["protocol"]
    with pytest.raises(UserError, match="chosen on its split train"):
        evaluate(finished, "train", dataset="synthetic_faces/compound", changes=ONE_DEVICE)


def test_a_model_file_is_evaluated_beside_itself(finished, tmp_path, results_of):
    path = epath.Path(tmp_path / "mine.safetensors")
    shutil.copy(finished / MODEL, path)
    results = evaluate(path, changes=ONE_DEVICE)
    assert results["confusion"] == results_of(finished)["confusion"]
    assert results["data_digest"] == results_of(finished)["data_digest"]
    assert (tmp_path / "mine-evaluation-test" / "predictions.csv").exists()


def test_a_split_that_has_changed_since_the_run_scored_it_is_said(finished, monkeypatch, capsys):
    def other(source):
        return matching.whole(dataclasses.replace(source.select(np.arange(50)), data_digest="other"))

    monkeypatch.setattr("fer_jax.inference.evaluate.whole", other)
    results = evaluate(finished, changes=ONE_DEVICE)
    assert "70 images then, 50 now" in results["note"]
    assert results["note"] in capsys.readouterr().out
