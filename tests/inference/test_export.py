"""Untrained models of every method as programs for others: what they predict, and what the files say of them."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
from untrained import CLASSES, untrained

from fer_jax import methods
from fer_jax.errors import UserError
from fer_jax.inference import export, trained
from fer_jax.nn.lowering import traced_for

PICTURE = (64, 64, 1)
EXPERIMENTS = {"compact": "fer2013_fast"}
METHODS = [n for n in methods.names() if not methods.load(n).measures and not methods.load(n).fit]
ADDING = ("scn", "correction")  # strategies that add to the model


def test_a_model_of_clips_takes_the_frames_of_one(tiny, tmp_path):
    """The frames are as many as there are; what comes out is what the model says of the whole clip."""
    model, path = untrained(tiny("fan")), tmp_path / "clips.stablehlo.zip"
    export.export(model, "stablehlo", path)
    function, card = export.read_stablehlo(path)
    assert card["crop"] == {"size": 64, "margin": -0.075, "rise": 0.05, "by_box": False}
    frames = np.random.default_rng(1).integers(0, 256, (3, *PICTURE)).astype(np.uint8)
    logits, _ = model._clip_logits(frames, np.ones(3, bool))
    np.testing.assert_allclose(function(frames), jax.nn.softmax(logits)[None], atol=1e-5)


def test_a_program_averages_the_views_that_evaluation_averages(tmp_path):
    model, path = trained.build(*trained.read(), {"train.devices": 1}), tmp_path / "faces.stablehlo.zip"
    assert model.task.corner_evaluation
    export.export(model, "stablehlo", path)
    faces = np.random.default_rng(1).integers(0, 256, (3, 48, 48, 1)).astype(np.uint8)
    found = export.read_stablehlo(path)[0](faces)
    np.testing.assert_allclose(found, export._probabilities(model, faces), atol=1e-5)
    single = dataclasses.replace(model, task=dataclasses.replace(model.task, corner_evaluation=False))
    assert np.abs(found - export._probabilities(single, faces)).max() > 1e-2


def test_landmarks_are_found_in_each_face_and_no_program_finds_any(tiny, tmp_path, monkeypatch):
    marks = np.random.default_rng(0).uniform(10, 50, (68, 2)).astype(np.float32)
    monkeypatch.setattr(trained, "Landmarks", lambda: lambda face: marks if face.any() else None)
    config = tiny("geometry")
    config.model.learner = "logistic"
    model = untrained(config)
    faces = np.stack([np.ones(PICTURE, np.uint8), np.zeros(PICTURE, np.uint8)])
    assert [row.expression in CLASSES for row in model.predict(faces)] == [True, False]
    with pytest.raises(UserError, match="no feature map"):
        model.explain(faces)
    with pytest.raises(UserError, match="needs landmarks"):
        export.export(model, "stablehlo", tmp_path / "faces.stablehlo.zip")
    monkeypatch.setattr(trained, "Landmarks", nothing_finds_landmarks)
    with pytest.raises(UserError, match="needs dlib"):  # before a table begins
        untrained(config).reader(None)


def nothing_finds_landmarks():
    raise UserError("finding landmarks needs dlib")


@pytest.mark.parametrize(("name", "objective"), [*((m, "") for m in METHODS), *(("baseline", s) for s in ADDING)])
def test_every_method_is_traced_for_any_number_of_faces(name, objective, tiny):
    config = tiny(EXPERIMENTS.get(name, name))
    config.objective, config.strategy.correction.matrix = objective, "learned"
    model = untrained(config)
    probabilities = jax.eval_shape(traced_for("any", export._predicting(model)), export._argument(model))
    assert probabilities.shape[1:] == (len(model.classes),)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_in_onnxruntime(name, tiny, tmp_path):
    """For any number of faces, with everything inside; `export` itself compares 64 of them."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    model, path = untrained(tiny(EXPERIMENTS.get(name, name))), tmp_path / "faces.onnx"
    assert "largest difference" in export.export(model, "onnx", path)
    session = onnxruntime.InferenceSession(path)
    card = json.loads(session.get_modelmeta().custom_metadata_map["fer_jax"])
    assert card["classes"] == list(model.classes)
    assert card["preprocessing"]["size"] == model.preprocessing.size
    faces = np.random.default_rng(1).integers(0, 256, (5, *PICTURE)).astype(np.uint8)
    (probabilities,) = session.run(["probabilities"], {"faces": faces})
    np.testing.assert_allclose(probabilities, export._probabilities(model, faces), atol=1e-4)


def test_onnx_names_its_extra(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"fer_jax\[onnx\]"):
        export.export(untrained(tiny()), "onnx", tmp_path / "faces.onnx")
    assert not list(tmp_path.iterdir())
