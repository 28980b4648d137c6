"""Clips are scored on all their frames, whatever their length, the batch size or the padding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.data.augment.augmentation import Augmentation
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.data.sources.source import Source
from fer_jax.engine.mesh import make_mesh
from fer_jax.evaluation.clips import ClipEvaluator, _groups
from fer_jax.evaluation.evaluate import Evaluator, score
from fer_jax.evaluation.task import Task
from fer_jax.methods import fan

LENGTHS = (12, 1, 0, 40, 3, 12, 9)


class Trunk(nn.Module):
    """The pixels through one layer: what a frame shows is in its features, and mirroring changes them."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, mask):
        return nn.tanh(nn.Dense(9)(x.reshape(len(x), -1))), {}


def source(lengths=LENGTHS, seed=0):
    rng = np.random.default_rng(seed)
    length = np.array(lengths, np.int32)
    total, n = int(length.sum()), len(length)
    mask = rng.random(total) < 0.8
    label = (np.arange(n) % 3).astype(np.int32)
    arrays = {
        "length": length,
        "start": (np.cumsum(length) - length).astype(np.int32),
        "label": label,
        "target": np.eye(3, dtype=np.float32)[label],
        "index": np.arange(n, dtype=np.int32),
    }
    frames = {"frames": rng.integers(0, 256, (total, 4, 4, 3), np.uint8), "frame_mask": mask}
    return Source("known/clips", "test", ("a", "b", "c"), arrays, np.arange(n), frames)


def task_of(attention="relation", flip=False, profiles=("frame_weights", "anchor")):
    model = fan.Model(num_classes=3, attention=attention, backbone=Trunk)
    return Task(fan.METHOD, model, {}, {}, Augmentation(), Preprocessing(4), profiles=profiles, flip_evaluation=flip)


def pixels(frames):
    return jnp.asarray((frames / 255 - 0.5) / 0.5, jnp.float32)


def variables_of(task):
    batch = {"frames": jnp.zeros((1, 2, 4, 4, 3)), "frame_mask": jnp.ones((1, 2), bool)}
    variables = task.model.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, batch, train=True)
    return jax.tree.map(lambda v: 3 * v, variables)


def one_by_one(task, variables, data):
    """The model on every clip alone, without padding; None where it has no frame."""
    answers = []
    for start, length in zip(data.arrays["start"], data.arrays["length"], strict=True):
        rows = slice(start, start + length)
        batch = {
            "frames": pixels(data.frames["frames"][rows])[None],
            "frame_mask": jnp.asarray(data.frames["frame_mask"][rows])[None],
        }
        answers.append(task.model.apply(variables, batch, train=False) if length else None)
    return answers


@pytest.mark.parametrize(("batch_size", "devices"), [(7, 1), (8, 4)])
@pytest.mark.parametrize("attention", ["relation", "score_fusion"])
def test_every_batch_size_gives_what_each_clip_gives_alone(attention, batch_size, devices):
    task, data = task_of(attention), source()
    variables = variables_of(task)
    outputs = Evaluator(task, make_mesh(devices=devices), batch_size)(variables, data)
    answers = one_by_one(task, variables, data)
    assert outputs["logits"].shape == (7, 3)
    assert outputs["frame_weights"].shape == (sum(LENGTHS),)
    for clip, answer in enumerate(answers):
        start, length = data.arrays["start"][clip], data.arrays["length"][clip]
        if answer is None:
            bias = variables["params"]["classifier"]["bias"]
            np.testing.assert_allclose(jax.nn.softmax(outputs["logits"][clip]), jax.nn.softmax(bias), atol=1e-5)
            continue
        np.testing.assert_allclose(outputs["logits"][clip], answer[0][0], atol=1e-5)
        weights = outputs["frame_weights"][start : start + length]
        np.testing.assert_allclose(weights, answer[1]["frame_weights"][0], atol=1e-6)
        assert (weights[~data.frames["frame_mask"][start : start + length]] == 0).all()
        if attention == "relation":
            np.testing.assert_allclose(outputs["anchor"][clip], answer[1]["anchor"][0], atol=1e-5)
    scores = score(outputs, data, bootstrap=10)
    assert scores["num_examples"] == 7  # clips, not frames
    assert scores["unit"] == "clips"
    assert scores["frames"]["frames"] == sum(LENGTHS)


def test_ten_thousand_frames_beside_one():
    task, data = task_of(), source([10_000, 1, 3])
    variables = variables_of(task)
    outputs = Evaluator(task, make_mesh(devices=1), 256)(variables, data)
    for clip, answer in enumerate(one_by_one(task, variables, data)):
        np.testing.assert_allclose(outputs["logits"][clip], answer[0][0], atol=1e-4)
    assert outputs["frame_weights"][:10_000].sum() == pytest.approx(1, abs=1e-4)


def test_a_selection_is_scored_as_the_whole_is():
    task, data = task_of(), source()
    variables = variables_of(task)
    evaluator = Evaluator(task, make_mesh(devices=1), 16)
    whole, part = evaluator(variables, data), evaluator(variables, data.select(np.array([5, 2, 0])))
    np.testing.assert_allclose(part["logits"], whole["logits"][[5, 2, 0]], atol=1e-6)
    np.testing.assert_allclose(part["frame_weights"][12:], whole["frame_weights"][:12], atol=1e-6)


def test_flipped_evaluation_is_the_mean_of_both_views():
    data = source()
    plain, both = task_of(), task_of(flip=True)
    variables = variables_of(plain)
    mesh = make_mesh(devices=1)
    mirrored = Source(**{**vars(data), "frames": {**data.frames, "frames": data.frames["frames"][:, :, ::-1]}})
    views = [jax.nn.softmax(Evaluator(plain, mesh, 16)(variables, d)["logits"]) for d in (data, mirrored)]
    assert np.abs(views[0] - views[1]).max() > 1e-2
    outputs = Evaluator(both, mesh, 16)(variables, data)
    np.testing.assert_allclose(np.exp(outputs["logits"]), (views[0] + views[1]) / 2, rtol=1e-4)


def test_clips_without_any_face_are_answered_too():
    data = source([4, 2])
    blind = Source(**{**vars(data), "frames": {**data.frames, "frame_mask": np.zeros(6, bool)}})
    task = task_of()
    variables = variables_of(task)
    outputs = Evaluator(task, make_mesh(devices=1), 16)(variables, blind)
    bias = variables["params"]["classifier"]["bias"]
    np.testing.assert_allclose(outputs["logits"], np.stack([bias, bias]), atol=1e-6)
    assert (outputs["frame_weights"] == 0).all()
    assert score(outputs, blind, bootstrap=0)["frames"]["clips_without_face"] == 2


def test_few_programs_serve_all_lengths():
    """The trunk has one; the attention one for each power of two that occurs."""
    task = task_of()
    variables = variables_of(task)
    evaluator = ClipEvaluator(task, make_mesh(devices=1), 32)
    evaluator(variables, source(tuple(range(30))))
    evaluator(variables, source((31, 2, 2, 17, 9), seed=1))
    assert len(evaluator._embed._halves) == 1
    assert len(evaluator._join._halves) == 3  # 8, 16, 32


def test_groups_cover_every_clip_once_in_bounded_memory():
    length = np.concatenate([np.arange(200), [5_000, 9_999, 10_000]])
    seen = []
    for rows, frames in _groups(length, 64, 4):
        assert len(rows) % 4 == 0
        assert len(rows) * frames <= 1 << 16
        assert length[rows[rows >= 0]].max(initial=0) <= frames
        seen += rows[rows >= 0].tolist()
    assert sorted(seen) == list(range(203))
