"""A run keeps the class vectors it began with, and needs the file they came from no more."""

import json
import signal

import numpy as np
import pytest
from etils import epath

from fer_jax.errors import UserError
from fer_jax.inference.evaluate import evaluate
from fer_jax.labels import EMOTIONS
from fer_jax.methods import word2vec
from fer_jax.training import loop
from fer_jax.training.setup import make_setup
from fer_jax.words.classes import STORED, class_vectors


@pytest.fixture
def embedding(tmp_path):
    """A file of word vectors as a user would have, 20 numbers to a word."""
    rng = np.random.default_rng(0)
    words = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, rng.normal(size=20)))}\n" for word in words))
    return path


@pytest.fixture
def config(tiny, embedding):
    config = tiny("word2vec", max_steps=4)
    config.model.vectors = str(embedding)
    config.loss.options.kind = "hybrid"
    config.model.learn_scale = True
    return config


def test_resumed_and_evaluated_without_the_file(config, embedding, tmp_path, monkeypatch):
    used = class_vectors(str(embedding), "seed", EMOTIONS[:7])
    workdir = epath.Path(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_should_stop", lambda signals, _: signals.caught.append(signal.SIGTERM) or True)
        with pytest.raises(loop.Interrupted, match="at step 1"):
            loop.train(config, workdir)
    embedding.write_text(embedding.read_text().replace("angry ", "angry 9"))  # another file by now
    resumed = loop.train(config, workdir)
    assert resumed["class_vectors"] == used.summary()
    assert resumed["class_vectors"]["source"] == str(embedding)

    embedding.unlink()
    evaluated = evaluate(workdir, changes={"train.devices": 1})
    same = ("accuracy", "nll", "confusion", "semantic_error", "class_vectors", "params_sha256")
    assert {k: evaluated[k] for k in same} == {k: resumed[k] for k in same}
    gram = word2vec.gram_matrix(np.asarray(used.vectors))
    assert evaluated["semantic_error"] == pytest.approx(word2vec.semantic_error(gram, evaluated["confusion"]))

    stored = json.loads((workdir / STORED).read_text())
    stored["vectors"][2][3] = 1.0
    (workdir / STORED).write_text(json.dumps(stored))
    (workdir / "results.json").unlink()
    with pytest.raises(UserError, match="SHA-256"):
        loop.train(config, workdir)


def test_a_missing_file_is_said_before_anything_is_written(config, embedding, tmp_path):
    embedding.unlink()
    with pytest.raises(UserError, match="vectors.txt is not there: give another config.model.vectors"):
        loop.train(config, epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_only_methods_with_class_vectors_keep_any(tiny):
    assert not make_setup(tiny("baseline")).model_fields.files


def test_class_weights_to_a_power(tiny):
    config = tiny("baseline")
    config.data.class_weights = True
    whole = make_setup(config)
    counts = whole.train.class_counts()
    np.testing.assert_allclose(whole.task.class_weights, counts.sum() / (7 * counts))
    config.data.class_weight_power = 0.5
    np.testing.assert_allclose(make_setup(config).task.class_weights, (counts.sum() / (7 * counts)) ** 0.5)
