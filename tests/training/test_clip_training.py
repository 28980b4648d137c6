"""Clips in training: the same batches on both paths, the same run after a stop, one draw for a whole clip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fer_jax.data.augment.augmentation import Augmentation
from fer_jax.data.augment.inputs import augmented_inputs, mirrored, plain_inputs
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.data.sources.clips import clip_sampler
from fer_jax.data.sources.rows import take_rows
from fer_jax.inference.evaluate import evaluate
from fer_jax.training import loop
from fer_jax.training.runner import StepRunner
from fer_jax.training.setup import make_setup


def batches(config, path, start=3):
    config.data.path = path
    setup = make_setup(config)
    feed = StepRunner(setup, start)
    taken = [feed.next_batch() for _ in range(3)]
    if path == "auto":
        return setup, [take_rows(feed._data, indices) for indices in taken]
    return setup, taken


@pytest.mark.parametrize(
    ("sampling", "attention", "count"),
    [("official", "relation", 3), ("segments", "score_fusion", 1)],
)
def test_both_paths_bring_the_same_batches(sampling, attention, count, tiny):
    config = tiny("fan")
    config.data.clip_sampling, config.model.attention = sampling, attention
    setup, resident = batches(config, "auto")
    _, streamed = batches(config, "stream")
    for ours, theirs in zip(resident, streamed, strict=True):
        assert set(ours) == set(theirs)
        assert ours["frames"].shape == (16, count, 64, 64, 3)
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name])
    faces = int(setup.train.fields()["frame_mask"].sum())
    assert len(setup.instances) == faces
    assert setup.images_per_step == 16 * count


def test_the_landmarks_of_frames_come_along(tiny):
    setup, resident = batches(tiny("geometry_sequences"), "auto")
    _, streamed = batches(tiny("geometry_sequences"), "stream")
    frames = setup.train.frames
    assert not np.isfinite(frames["points"][~frames["frame_mask"]]).any()
    for ours, theirs in zip(resident, streamed, strict=True):
        np.testing.assert_array_equal(ours["points"], theirs["points"])
        (place,) = np.flatnonzero((frames["frames"] == ours["frames"][2, 1]).all(axis=(1, 2, 3)))
        np.testing.assert_array_equal(ours["points"][2, 1], frames["points"][place])


class Stopped(Exception):
    pass


@pytest.mark.parametrize("path", ["auto", pytest.param("stream", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(path, tiny, tmp_path, monkeypatch):
    config = tiny("fan", max_steps=6, eval_every_epochs=0.5)
    config.data.path = path
    whole, parts = epath.Path(tmp_path / "whole"), epath.Path(tmp_path / "parts")
    reference = loop.train(config, whole)
    original = StepRunner.run

    def broken(self, state, most):
        if int(state.step) == 5:
            raise Stopped
        return original(self, state, most)

    with monkeypatch.context() as patch:
        patch.setattr(StepRunner, "run", broken)
        with pytest.raises(Stopped):
            loop.train(config, parts)
    resumed = loop.train(config, parts)
    assert resumed["params_sha256"] == reference["params_sha256"]
    assert resumed["nll"] == reference["nll"]
    assert (parts / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert reference["unit"] == "clips"
    assert reference["num_examples"] == 28
    assert reference["frames"]["without_face"] > 0

    # FAN's official evaluation has no parameters: a stored model is scored that way too.
    official = evaluate(whole, changes={"train.devices": 1, "model.official_eval": True})
    assert official["num_examples"] == 28
    assert official["nll"] != reference["nll"]


def test_a_clip_without_a_face_trains_nothing(tiny):
    """Its target, whatever it is, has no part in loss, gradient and batch statistics."""
    setup = make_setup(tiny("fan"))
    length, start = setup.train.arrays["length"], setup.train.arrays["start"]
    mask = setup.train.frames["frame_mask"].copy()
    mask[start[0] : start[0] + length[0]] = False
    runs = []
    for label in (0, 5):
        arrays = {k: v.copy() for k, v in setup.train.arrays.items()}
        arrays["target"][0] = np.eye(7)[label]
        train = dataclasses.replace(setup.train, arrays=arrays, frames={**setup.train.frames, "frame_mask": mask})
        drawn = clip_sampler(arrays, mask, sampling="segments", frames=3, single=False, seed=0)
        changed = dataclasses.replace(setup, train=train, instances=drawn)
        feed = StepRunner(changed, 0)
        state, seen = changed.init(), []
        for _ in range(len(train) // 16 + 1):
            state, metrics, _ = feed.run(state, 1)
            seen.append(float(metrics["loss/total"][0]))
        runs.append((seen, state.params))
        assert np.isfinite(seen).all()
    assert runs[0][0] == runs[1][0]
    jax.tree.map(np.testing.assert_array_equal, runs[0][1], runs[1][1])


@pytest.mark.parametrize("per_frame", [False, True])
def test_a_clip_is_augmented_as_a_whole_unless_asked(per_frame):
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (6, 1, 20, 20, 3), np.uint8)
    batch = {"frames": jnp.asarray(np.repeat(one, 4, axis=1)), "frame_mask": jnp.ones((6, 4), bool)}
    operations = ("crop:16", "flip", "rotate:10", "brightness:0.3", "noise:5", "erase:0.5")
    preprocessing = Preprocessing(12, crop=16)
    augmentation = Augmentation(operations, per_frame=per_frame)
    frames = augmented_inputs(jax.random.key(3), batch, augmentation, preprocessing)["frames"]
    assert frames.shape == (6, 4, 12, 12, 3)
    alike = [np.abs(frames[:, 0] - frames[:, k]).max() < 1e-6 for k in range(1, 4)]
    assert alike == [not per_frame] * 3
    assert np.abs(frames[0, 0] - frames[1, 0]).max() > 0.1
    still = plain_inputs(batch, preprocessing)["frames"]
    np.testing.assert_array_equal(still[:, 0], still[:, 3])
    np.testing.assert_array_equal(mirrored({"frames": still})["frames"], still[:, :, :, ::-1])


def test_the_image_baseline_trains_on_the_last_faces_of_clips(tiny):
    config = tiny("baseline")
    config.data.dataset, config.data.builder = "synthetic_faces/clips", tiny("fan").data.builder
    config.data.last_frames = 3
    setup = make_setup(config)
    assert setup.instances is None
    assert setup.train.unit == setup.validation.unit == "images"
    state, metrics, _ = StepRunner(setup, 0).run(setup.init(), 1)
    assert int(state.step) == 1
    assert np.isfinite(metrics["loss/total"][0])


@pytest.mark.slow
def test_one_and_four_devices_agree(tiny):
    losses = {}
    for devices in (1, 4):
        config = tiny("fan", max_steps=4, devices=devices)
        config.optimizer.name, config.optimizer.learning_rate = "sgd", 1e-3
        config.schedule.name = "constant"
        setup = make_setup(config)
        feed, state = StepRunner(setup, 0), setup.init()
        seen = []
        for _ in range(4):
            state, metrics, _ = feed.run(state, 1)
            seen.append(float(metrics["loss/total"][0]))
        losses[devices] = seen
    np.testing.assert_allclose(losses[4], losses[1], rtol=1e-4)
