"""Every example is scored once, whatever the batch size or the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.data.augment.augmentation import Augmentation
from fer_jax.data.augment.inputs import corner_view, plain_inputs
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.data.sources.source import Source
from fer_jax.engine.mesh import make_mesh
from fer_jax.errors import UserError
from fer_jax.evaluation import evaluate
from fer_jax.evaluation.evaluate import Evaluator, score, with_corners
from fer_jax.evaluation.task import Task
from fer_jax.methods.method import Method


class Reader(nn.Module):
    """Reads its logits out of the picture, so that every answer is known beforehand."""

    @nn.compact
    def __call__(self, batch, *, train):
        return batch["image"][:, 0, :3, 0] * 4.0, {"place": batch["index"][:, None].astype("float32")}


METHOD = Method(Reader, lambda *_: {}, {})


@pytest.fixture
def source():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (37, 4, 4, 1), dtype=np.uint8)
    label = rng.integers(0, 3, 37).astype(np.int32)
    arrays = {"image": images, "label": label, "target": np.eye(3, dtype=np.float32)[label]}
    votes = rng.random((37, 3)).astype(np.float32)
    votes /= votes.sum(-1, keepdims=True)
    votes[5] = 0  # nobody voted for an emotion here
    arrays |= {"vote_target": votes, "index": np.arange(37, dtype=np.int32)}
    return Source("known", "test", ("a", "b", "c"), arrays, np.arange(len(arrays["label"])))


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_outputs_do_not_depend_on_batches_or_devices(devices, batch_size, source):
    task = Task(METHOD, Reader(), {}, {}, Augmentation(), Preprocessing(4), profiles=("place",))
    outputs = Evaluator(task, make_mesh(devices=devices), batch_size)({"params": {}}, source)
    expected = (source.arrays["image"][:, 0, :3, 0] / 255 - 0.5) / 0.5 * 4.0
    np.testing.assert_allclose(outputs["logits"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs["place"][:, 0], np.arange(37))
    scores = score(outputs, source, bootstrap=10)
    assert scores["num_examples"] == 37
    assert scores["accuracy"] == np.mean(expected.argmax(-1) == source.arrays["label"])
    assert np.isfinite(scores["kl_to_votes"])


@pytest.mark.parametrize("step", [lambda *_: 1 / 0, lambda *_: {"logits": 0}])  # in its turn, and after it
def test_an_evaluation_that_fails_lets_go_of_what_was_read_ahead(step, source, monkeypatch):
    streams, original = [], evaluate.Stream
    monkeypatch.setattr(evaluate, "Stream", lambda *a, **k: streams.append(original(*a, **k)) or streams[-1])
    task = Task(METHOD, Reader(), {}, {}, Augmentation(), Preprocessing(4))
    evaluator = Evaluator(task, make_mesh(devices=1), 5)
    evaluator._step = step
    with pytest.raises((ZeroDivisionError, AttributeError)):
        evaluator({"params": {}}, source)
    (ahead,) = streams
    assert ahead._pool._shutdown
    assert not ahead._made


def test_corner_evaluation_is_the_weighted_mean_of_the_views(source):
    task = Task(METHOD, Reader(), {}, {}, Augmentation(), Preprocessing(4), corner_evaluation=True)
    evaluator = Evaluator(task, make_mesh(devices=4), 20)
    outputs = evaluator({"params": {}}, source)
    logits = outputs["logits"]
    inputs = plain_inputs(dict(source.arrays), Preprocessing(4))
    views = [corner_view(inputs, jnp.int32(number))["image"][:, 0, :3, 0] * 4.0 for number in range(8)]
    plain = inputs["image"][:, 0, :3, 0] * 4.0
    p = 0.4 * jax.nn.softmax(plain) + 0.6 * jnp.mean(jnp.stack([jax.nn.softmax(v) for v in views]), axis=0)
    np.testing.assert_allclose(np.exp(logits), p, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outputs["plain_logits"], plain, rtol=1e-5, atol=1e-6)
    assert np.abs(p - jax.nn.softmax(plain)).max() > 0.05
    alone = evaluator({"params": {}}, source, views=False)  # what selects a model
    np.testing.assert_array_equal(alone["logits"], outputs["plain_logits"])
    assert "plain_logits" not in alone
    alike = jnp.stack([jax.nn.log_softmax(plain)] * 8)
    np.testing.assert_allclose(with_corners(plain, alike), jax.nn.log_softmax(plain), atol=1e-5)


def test_a_method_without_classes_is_scored_by_the_means_of_its_measures(source):
    def measures(logits, aux, batch):
        return {"first": logits[:, 0], "place": aux["place"][:, 0]}

    method = Method(Reader, lambda *_: {}, {}, measures={"first": "First, dB", "place": "Place"}, measure=measures)
    task = Task(method, Reader(), {}, {}, Augmentation(), Preprocessing(4))
    outputs = Evaluator(task, make_mesh(devices=4), 20)({"params": {}}, source)
    scores = score(outputs, source, bootstrap=10, task=task)
    assert scores["place"] == 18.0  # padding does not count
    expected = ((source.arrays["image"][:, 0, 0, 0] / 255 - 0.5) / 0.5 * 4.0).mean()
    np.testing.assert_allclose(scores["first"], expected, rtol=1e-5)
    assert scores["num_examples"] == 37
    assert scores["measures"] == method.measures
    outputs["first"] = outputs["first"].copy()
    outputs["first"][3] = np.nan
    with pytest.raises(UserError, match="outputs for 1 of 37 examples of known test are not finite"):
        score(outputs, source, bootstrap=0, task=task)
