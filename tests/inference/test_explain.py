"""Explanations: what is drawn of clips, and scores whose value is known by hand."""

import csv
import dataclasses

import numpy as np
from PIL import Image
from untrained import CLASSES, untrained

from fer_jax.evaluation.predictions import PredictionRow
from fer_jax.faces.inputs import Picture
from fer_jax.inference import explain_scores as scores
from fer_jax.inference.explain import ExplainedFace, explain_predictions
from fer_jax.inference.explain_files import explain_files
from fer_jax.inference.predict import Prediction
from tfds_builders.synthetic_faces.camera import clean_camera
from tfds_builders.synthetic_faces.examples import draw
from tfds_builders.synthetic_faces.expressions import AU_IDS
from tfds_builders.synthetic_faces.plan import Plan
from tfds_builders.synthetic_faces.renderer import render

SHAPE = (24, 24)


def test_a_clip_is_a_strip_of_frames_with_its_weights(tmp_path):
    row = PredictionRow("films/a.mp4", expression="fear", frame_weights=(0.25, 0.0, 0.75))
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    missing = ExplainedFace(PredictionRow("b.mp4", status="no_face"))
    said = explain_files([ExplainedFace(row, frames), missing], "attention", tmp_path)
    assert said.endswith("without a face: 1, such as b.mp4 shows no face")
    drawn = np.asarray(Image.open(tmp_path / "films" / "a.mp4_0_fear.png"))
    blue = (drawn[8:] != 255).any(axis=-1).reshape(8, 3, 8).sum(axis=(0, 2)) / 6
    np.testing.assert_allclose(blue, [round(8 / 3), 0, 8])
    lines = csv.DictReader((tmp_path / "films" / "a.mp4_0_fear.csv").read_text().splitlines())
    assert [float(line["weight"]) for line in lines] == [0.25, 0, 0.75]


def region():
    """A quarter of a picture."""
    inside = np.zeros(SHAPE, bool)
    inside[:12, 12:] = True
    return inside


def test_a_map_equal_to_the_region_scores_one_and_a_random_one_the_share_of_area():
    random = np.random.default_rng(0).random((2000, *SHAPE), np.float32)
    drawn = np.concatenate([region()[None].astype(np.float32), random])
    regions = np.broadcast_to(region(), drawn.shape)
    for score in (scores.pointing_game, scores.relevance_mass, scores.relevance_rank):
        found = score(drawn, regions)
        assert found[0] == 1
        np.testing.assert_allclose(found[1:].mean(), 0.25, atol=0.03)
        np.testing.assert_allclose(score(np.ones((1, *SHAPE)), regions[:1]), 0.25)  # places that are equal
    assert scores.relevance_mass(-drawn[:1], regions[:1]) == 0
    cosine = scores.region_cosine(drawn, regions.astype(np.float32))
    np.testing.assert_allclose([cosine[0], cosine[1:].mean()], [1, 0.5 * np.sqrt(0.75)], atol=0.01)


def test_a_map_that_follows_its_picture_is_consistent():
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (2, 4, 4, 1)).astype(np.uint8).repeat(6, axis=1).repeat(6, axis=2)
    maps = faces[..., 0].astype(np.float32)
    for name in scores.transforms(SHAPE):
        after = scores.transformed(faces, name)[..., 0].astype(np.float32)
        follows, stays = scores.consistency(maps, after, name), scores.consistency(maps, maps, name)
        assert follows.min() > (0.88 if name == "rotation" else 0.99)  # rotated pixels are interpolated twice
        assert name == "light" or (follows > stays + 0.05).all()
    np.testing.assert_array_equal(scores.transformed(faces, "flip"), faces[:, :, ::-1])
    assert (scores.consistency(maps, 0 * maps, "flip") == 0).all()
    seen = np.zeros(SHAPE, bool)
    seen[2:-2, 2:-2] = True
    margins = seen * np.random.default_rng(1).random((2, 400, *SHAPE))  # nothing in common but what is not seen
    assert abs(scores.consistency(*margins, "flip", seen).mean()) < 0.02


def test_insertion_of_a_linear_model_by_hand():
    """p = sum of w x / 100; pixels of weight 4, 3, 2, 1 return from 0 to 10, the best order first."""
    weights = np.array([[1, 4], [2, 3]])
    begin, end = np.zeros((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 10, np.uint8)

    def probability(faces):
        return (faces[..., 0] * weights).sum(axis=(1, 2)) / 100

    best, worst = (scores.perturbation_auc(probability, begin, end, sign * weights[None], 4) for sign in (1.0, -1.0))
    np.testing.assert_allclose(best, (0 / 2 + 0.4 + 0.7 + 0.9 + 1 / 2) / 4)
    np.testing.assert_allclose(worst, (0 / 2 + 0.1 + 0.3 + 0.6 + 1 / 2) / 4)


def test_regions_are_where_action_units_change_the_face():
    """Against the same faces drawn with every unit at rest."""
    assert tuple(scores.UNITS) == AU_IDS
    scene, _ = draw(Plan(), "test", np.arange(8))
    scene = dataclasses.replace(scene, camera=clean_camera(8))
    acting, resting = render(scene), render(dataclasses.replace(scene, units=0 * scene.units))
    change = ((acting.image.astype(float) - resting.image) ** 2).sum(axis=-1)
    regions = scores.unit_regions(scene.units, acting.landmarks, change.shape[1:]) > 0
    shown = scene.units.any(axis=1)
    assert scores.relevance_mass(change, regions)[shown].mean() > 0.85
    assert regions[shown].mean() < 0.25
    assert not regions[~shown].any()


def test_a_frame_without_a_face_has_no_map(tiny):
    model = untrained(tiny("fan"))
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 1)).astype(np.uint8)
    row = PredictionRow("a.mp4", expression=CLASSES[0], frame_weights=(0.5, 0.0, 0.5))
    rows = [row, dataclasses.replace(row, expression=None)]  # of which the second has equal logits
    explained, other = explain_predictions(model, [Prediction(Picture("a.mp4", None), rows, [frames] * 2)], "detail")
    assert explained.map is not None
    np.testing.assert_array_equal(explained.map, other.map)  # for the first class
    assert [bool(shown.any()) for shown in explained.map] == [True, False, True]
