"""Sections on a method's intermediates: what is drawn is what was measured."""

import dataclasses

import jax
import numpy as np
import pytest
from matplotlib.text import Text

from fer_jax.labels import EMOTIONS
from fer_jax.methods import word2vec
from fer_jax.report import Inspection, frames
from fer_jax.report.folder import ReportFolder
from fer_jax.report.method_sections import method_sections, picture_chart, similarity_chart
from fer_jax.words.classes import class_vectors

CLASSES = EMOTIONS[:7]
G = word2vec.gram_matrix(np.asarray(class_vectors("minilm", "seed", CLASSES).vectors))


def inspection(labels, values, fields=None):
    labels = np.asarray(labels)
    logits = np.random.default_rng(0).normal(size=(len(labels), 7))
    return Inspection(CLASSES, labels, logits, values, fields or {})


def clips(lengths, truth=True):
    rng = np.random.default_rng(0)
    length = np.array(lengths)
    total = int(length.sum())
    mask = rng.random(total) < 0.8
    faces = rng.integers(0, 256, (total, 24, 24, 3), np.uint8)
    fields = {"length": length, "frames": faces, "frame_mask": mask}
    fields |= {"frame_intensity": rng.random(total) * mask} if truth else {}
    return inspection(np.arange(len(length)) % 2, {"frame_weights": np.where(mask, rng.random(total), 0)}, fields)


@pytest.mark.parametrize("count", [1, 5, 16])
def test_bars_stand_under_faces_and_nowhere_else(count):
    rng = np.random.default_rng(count)
    mask = np.arange(count) % 4 != 3
    share, intensity = np.where(mask, 2 * rng.random(count), 0), rng.random(count)
    pictures = rng.integers(0, 256, (count, 20, 20, 3), np.uint8)
    above, below, truth = frames.strip(pictures, share, mask, np.arange(1, count + 1), intensity).axes
    bars = below.containers[0]
    np.testing.assert_allclose([b.get_x() + b.get_width() / 2 for b in bars], np.flatnonzero(mask), atol=1e-9)
    np.testing.assert_allclose([b.get_height() for b in bars], share[mask])
    line = truth.lines[0].get_ydata()
    np.testing.assert_allclose(line[mask], intensity[mask])
    assert np.isnan(line[~mask]).all()
    assert len(above.images) == count
    assert above.bbox.width / count == pytest.approx(above.bbox.height, rel=0.01)  # frames stay square
    assert above.get_xlim() == below.get_xlim()


def test_clips_are_shown_with_their_frames(tmp_path):
    page = method_sections(ReportFolder(tmp_path), clips([5, 1, 0, 2_000]))
    assert page.count("<figure") == len(list(tmp_path.glob("chart_clip_*.png"))) == 3  # the empty clip has none
    assert "16 of 2,000 frames" in page
    assert "true strength" in page
    assert "true strength" not in method_sections(ReportFolder(tmp_path), clips([3, 3], truth=False))


def test_a_fair_share_is_one_whatever_the_length(monkeypatch, tmp_path):
    data, drawn, strip = clips([4, 8]), [], frames.strip
    data.fields["frame_mask"][:] = True
    data.values["frame_weights"][:] = np.concatenate([np.full(4, 0.25), np.full(8, 0.125)])
    monkeypatch.setattr(frames, "strip", lambda *given: drawn.append(given[1]) or strip(*given))
    method_sections(ReportFolder(tmp_path), data)
    np.testing.assert_allclose(np.concatenate(drawn), np.ones(12))


def test_similarity_is_the_mean_per_class(tmp_path):
    labels = np.array([0, 0, 1, 2, 3, 4, 5])  # nobody is afraid
    similarity = G[labels] + np.array([0.1, -0.1, 0, 0, 0, 0, 0])[:, None]
    values = {"similarity": similarity, "word_similarity": np.broadcast_to(G, (7, 7, 7))}
    page = method_sections(ReportFolder(tmp_path), inspection(labels, values))
    assert "neutral 1.00, happiness 1.00" in page  # 1.1 and 0.9
    assert "fear " not in page
    assert (tmp_path / "chart_similarity.png").exists()


def test_both_matrices_are_written_into_the_cells():
    images = 0.5 * G
    images[6] = np.nan
    for axes, values in zip(similarity_chart(G, images, CLASSES).axes, (G, images), strict=True):
        written = {text.get_text() for text in axes.findobj(Text)}
        assert {f"{value:.2f}" for value in values.ravel() if np.isfinite(value)} <= written
        assert "nan" not in written


def test_the_method_shows_what_the_section_needs():
    vectors = class_vectors("minilm", "seed", CLASSES).vectors
    model = word2vec.Model(num_classes=7, class_vectors=vectors, control="random", depth=10, width=8)
    batch = {"image": np.zeros((2, 48, 48, 3), np.float32)}
    aux = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch, train=False)[0][1])
    shapes = {"similarity": (2, 7), "word_similarity": (2, 7, 7)}
    assert {name: aux[name].shape for name in word2vec.METHOD.shown} == shapes


def test_pictures_are_drawn_under_their_names(tmp_path):
    sizes = {"image": 16, "half": 8, "super_resolved": 16}
    values = {name: np.random.default_rng(0).normal(size=(14, side, side, 3)) for name, side in sizes.items()}
    page = method_sections(ReportFolder(tmp_path), inspection(np.arange(14) % 2, values))
    assert "each as image, half, super resolved" in page
    assert (tmp_path / "chart_pictures.png").exists()
    assert method_sections(ReportFolder(tmp_path), inspection([0], {"half": np.zeros((1, 4))})) == ""


def test_a_row_of_pictures_has_the_brightness_of_its_first():
    image = np.linspace(-1, 1, 16 * 16 * 3).reshape(1, 16, 16, 3)
    figure = picture_chart({"input": image, "brighter": 3 * image}, ["fear"])
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    np.testing.assert_allclose(first, (image[0] + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(second, np.clip((3 * image[0] + 1) / 2, 0, 1), atol=1e-6)


def test_gates_are_drawn_on_the_face_and_behind_an_object(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 48, (3, 24, 2))
    fields = {"image": rng.integers(0, 256, (3, 48, 48, 1), np.uint8), "points": points}
    shown = inspection([0, 1, 1], {"alpha": rng.uniform(0.4, 0.6, (3, 24)), "points": points}, fields)
    page = method_sections(ReportFolder(tmp_path), shown)
    assert "behind an object" not in page
    assert "whole face" not in page
    with_whole = dataclasses.replace(shown, values=shown.values | {"alpha": rng.uniform(0.4, 0.6, (3, 25))})
    page = method_sections(ReportFolder(tmp_path), dataclasses.replace(with_whole, occluded=with_whole))
    assert "behind an object" in page
    assert "whole face" in page
    assert (tmp_path / "chart_gates.png").exists()
    without_gates = dataclasses.replace(shown, values=shown.values | {"alpha": np.ones((3, 24))})
    assert method_sections(ReportFolder(tmp_path), without_gates) == ""
