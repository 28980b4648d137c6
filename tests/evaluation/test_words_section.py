"""The report's section on words and faces shows the cosines it was given, class by class."""

import jax
import numpy as np
from matplotlib.text import Text

from fer_jax.labels import EMOTIONS
from fer_jax.methods import word2vec
from fer_jax.report import words
from fer_jax.report.inside import inside
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown
from fer_jax.words.classes import class_vectors

CLASSES = EMOTIONS[:7]
G = word2vec.gram_matrix(np.asarray(class_vectors("minilm", "seed", CLASSES).vectors))


def shown(labels, similarity):
    return Shown(
        classes=CLASSES,
        labels=labels,
        logits=16 * similarity,
        values={"similarity": similarity, "word_similarity": np.broadcast_to(G, (len(labels), 7, 7))},
        fields={},
    )


def test_means_per_class(tmp_path):
    labels = np.array([0, 0, 1, 2, 3, 4, 5])  # nobody is afraid
    similarity = G[labels] + np.array([0.1, -0.1, 0, 0, 0, 0, 0])[:, None]
    html = inside(Book(tmp_path), shown(labels, similarity.astype(np.float32)))
    assert "In the space of the words" in html
    assert "neutral, 1.00; happiness, 1.00" in html  # 1.1 and 0.9
    assert "fear," not in html
    assert (tmp_path / "chart_words.png").stat().st_size > 10_000


def test_both_matrices_are_written_into_the_cells():
    faces = 0.5 * G
    faces[6] = np.nan
    left, right = words.words_chart(G, faces, CLASSES).axes
    for axes, values in ((left, G), (right, faces)):
        written = {t.get_text() for t in axes.findobj(Text)}
        assert {f"{value:.2f}" for value in values.ravel() if np.isfinite(value)} <= written
    assert "nan" not in written


def test_the_method_hands_out_what_the_section_needs():
    model = word2vec.Model(
        num_classes=7,
        class_vectors=class_vectors("minilm", "seed", CLASSES).vectors,
        control="random",
        depth=10,
        width=8,
    )
    batch = {"image": np.zeros((2, 48, 48, 3), np.float32)}
    aux = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch, train=False)[0][1])
    assert {name: aux[name].shape for name in word2vec.METHOD.shown} == {
        "similarity": (2, 7),
        "word_similarity": (2, 7, 7),
    }
