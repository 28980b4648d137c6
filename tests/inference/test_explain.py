"""Explanations: what is drawn of clips, and scores whose value is known by hand."""

import csv

import numpy as np
from PIL import Image

from fer_jax.evaluation.predictions import PredictionRow
from fer_jax.inference.explain import ExplainedFace
from fer_jax.inference.explain_files import explain_files


def test_a_clip_is_a_strip_of_frames_with_its_weights(tmp_path):
    row = PredictionRow("films/a.mp4", expression="fear", frame_weights=(0.25, 0.0, 0.75))
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    missing = ExplainedFace(PredictionRow("b.mp4", status="no_face"))
    said = explain_files([ExplainedFace(row, frames), missing], "attention", tmp_path)
    assert "1 pictures without: b.mp4 shows no face" in said
    drawn = np.asarray(Image.open(tmp_path / "films" / "a.mp4_0_fear.png"))
    blue = (drawn[8:] != 255).any(axis=-1).reshape(8, 3, 8).sum(axis=(0, 2)) / 6
    np.testing.assert_allclose(blue, [round(8 / 3), 0, 8])
    lines = csv.DictReader((tmp_path / "films" / "a.mp4_0_fear.csv").read_text().splitlines())
    assert [float(line["weight"]) for line in lines] == [0.25, 0, 0.75]
