"""Sections on a method's intermediates: what is drawn is what was measured."""

import base64
import dataclasses
import io
import re

import jax
import numpy as np
from PIL import Image

from fer_jax.labels import EMOTIONS
from fer_jax.methods import word2vec
from fer_jax.report import Inspection
from fer_jax.report.heat import BLUES, value_table
from fer_jax.report.method_sections import fair_shares, in_range, method_sections
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


def bars(page):
    """The height in percent of each bar, and of each dot, in order."""
    heights = [float(value) for value in re.findall(r'<i style="height:([\d.]+)%', page)]
    return heights, [float(value) for value in re.findall(r'<b style="bottom:([\d.]+)%', page)]


def test_bars_and_dots_show_weights_and_truth():
    data = clips([5])
    data.fields["frame_mask"][:] = [True, True, False, True, True]
    data.values["frame_weights"][:] = [0.1, 0.2, 0.0, 0.3, 0.4]
    data.fields["frame_intensity"][:] = [0.5, 0.25, 0.9, 0, 1]
    page = method_sections(data)
    heights, dots = bars(page)
    np.testing.assert_allclose(np.array(heights) / heights[4], [0.25, 0.5, 0, 0.75, 1], atol=0.01)
    assert dots == [50, 25, 0, 100]  # none where there is no face
    assert page.count("bar blank") == 1
    film = Image.open(io.BytesIO(base64.b64decode(re.search('base64,([^"]*)', page)[1])))
    assert film.width == 5 * film.height


def test_clips_are_shown_with_their_frames():
    page = method_sections(clips([5, 1, 0, 2_000]))
    assert page.count("<figure") == page.count("<img") == 3  # none of the empty clip
    assert "16 of 2,000 frames" in page
    assert "true strength" in page
    without = method_sections(clips([3, 3], truth=False))
    assert "true strength" not in without
    assert not bars(without)[1]


def test_a_fair_share_is_one_whatever_the_length():
    mask = np.array([True, True, False, True, True])
    np.testing.assert_allclose(fair_shares(0.25 * mask, mask), mask)
    np.testing.assert_allclose(fair_shares(np.full(8, 0.125), np.ones(8, bool)), np.ones(8))
    assert not fair_shares(np.zeros(3), np.zeros(3, bool)).any()


def test_similarity_is_the_mean_per_class():
    labels = np.array([0, 0, 1, 2, 3, 4, 5])  # nobody is afraid
    similarity = G[labels] + np.array([0.1, -0.1, 0, 0, 0, 0, 0])[:, None]
    values = {"similarity": similarity, "word_similarity": np.broadcast_to(G, (7, 7, 7))}
    page = method_sections(inspection(labels, values))
    rows = re.findall(r"<tr><th scope=.row.>(.*?)</tr>", page)
    assert ">1.00<" in rows[7]  # neutral among the images: the mean of 1.1 and 0.9
    assert re.findall(r"<td[^>]*>([^<]*)</td>", rows[13]) == [""] * 7


def test_a_table_writes_its_values_and_leaves_unknown_ones_empty():
    images = 0.5 * G
    images[6] = np.nan
    page = value_table(images, BLUES(images), CLASSES, CLASSES)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    assert cells == ["", *(f"{value:.2f}" if np.isfinite(value) else "" for value in images.ravel())]


def test_the_method_shows_what_the_section_needs():
    vectors = class_vectors("minilm", "seed", CLASSES).vectors
    model = word2vec.Model(num_classes=7, class_vectors=vectors, control="random", depth=10, width=8)
    batch = {"image": np.zeros((2, 48, 48, 3), np.float32)}
    aux = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch, train=False)[0][1])
    shapes = {"similarity": (2, 7), "word_similarity": (2, 7, 7)}
    assert {name: aux[name].shape for name in word2vec.METHOD.shown} == shapes


def test_pictures_are_drawn_under_their_names():
    sizes = {"image": 16, "half": 8, "super_resolved": 16}
    values = {name: np.random.default_rng(0).normal(size=(14, side, side, 3)) for name, side in sizes.items()}
    page = method_sections(inspection(np.arange(14) % 2, values))
    assert all(title in page for title in ("image, 16 x 16", "half, 8 x 8", "super resolved, 16 x 16"))
    assert page.count("<img") == 8 * 3
    assert method_sections(inspection([0], {"half": np.zeros((1, 4))})) == ""


def test_a_row_of_pictures_has_the_brightness_of_its_first():
    image = np.linspace(-1, 1, 16 * 16 * 3).reshape(16, 16, 3)
    np.testing.assert_allclose(in_range(image, image), 255 * (image + 1) / 2, atol=0.5)
    np.testing.assert_allclose(in_range(3 * image, image), 255 * np.clip((3 * image + 1) / 2, 0, 1), atol=0.5)


def test_gates_are_drawn_on_the_face_and_behind_an_object():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 48, (3, 24, 2))
    fields = {"image": rng.integers(0, 256, (3, 48, 48, 1), np.uint8), "points": points}
    shown = inspection([0, 1, 1], {"alpha": rng.uniform(0.4, 0.6, (3, 24)), "points": points}, fields)
    page = method_sections(shown)
    assert "behind an object" not in page
    assert "whole face" not in page
    with_whole = dataclasses.replace(shown, values=shown.values | {"alpha": rng.uniform(0.4, 0.6, (3, 25))})
    page = method_sections(dataclasses.replace(with_whole, occluded=with_whole))
    assert "behind an object" in page
    assert page.count("<circle") == 2 * 3 * 24
    assert page.count("gate of the whole face") == 2 * 3
    assert page.count("<img") == 2 * 3
    without_gates = dataclasses.replace(shown, values=shown.values | {"alpha": np.ones((3, 24))})
    assert method_sections(without_gates) == ""
