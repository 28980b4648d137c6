"""FAN's claim: its measures on weights whose worth is known, and its arms."""

import types
from typing import Any

import numpy as np
import pytest

from experiments.claims import fan
from fer_jax.config.check import check_config
from fer_jax.data.sources.source import Source

INTENSITY = np.array([0, 0.1, 0.5, 1.0, 0.6, 0.2], np.float32)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(fan, "FRAMES", 6)


def clips():
    """An expressive clip with a masked and an occluded frame, a neutral one, and one without a face."""
    length = np.full(3, 6, np.int32)
    arrays = {"length": length, "start": np.array([0, 6, 12], np.int32), "label": np.array([1, 0, 1], np.int32)}
    mask = np.ones(18, bool)
    mask[[0, *range(12, 18)]] = False
    frames = {
        "frames": np.random.default_rng(0).integers(0, 256, (18, 64, 64, 3), np.uint8),
        "landmarks": np.full((18, 68, 2), np.nan, np.float32),
        "frame_mask": mask,
        "frame_intensity": np.concatenate([INTENSITY, np.zeros(12, np.float32)]),
        "occluded_fraction": np.where(np.arange(18) == 3, 0.3, 0.0).astype(np.float32),
    }
    return Source("known/clips", "test", ("neutral", "happy"), arrays, np.arange(3), frames)


def weights_of(first):
    first = np.asarray(first, float)
    return np.concatenate([first / first.sum(), np.full(6, 1 / 6), np.zeros(6)])


def test_correlation_of_weights_with_the_truth():
    assert fan.correlations(weights_of(INTENSITY), clips()).mean() == pytest.approx(1)
    assert fan.correlations(weights_of([0, 1, 0.5, 0.1, 0.4, 0.9]), clips()).mean() == pytest.approx(-1)
    assert fan.correlations(weights_of([0, 1, 1, 1, 1, 1]), clips()).mean() == 0


def test_an_object_comes_before_the_strongest_free_frame_alone():
    test = clips()
    places = fan.strongest_frames(test)
    assert places.tolist() == [4, 6, -1], "frame 3 is stronger, and hidden"
    changed = fan.with_objects(test, places).frames["frames"] != test.frames["frames"]
    assert np.flatnonzero(changed.any(axis=(1, 2, 3))).tolist() == [4, 6]


def test_logits_of_features_weighed_by_the_truth():
    features = np.random.default_rng(0).normal(size=(18, 2))
    classifier = {"kernel": np.eye(2), "bias": np.ones(2)}
    model: Any = types.SimpleNamespace(variables={"params": {"classifier": classifier}})
    shown = INTENSITY * [0, 1, 1, 1, 1, 1]
    wanted = [shown @ features[:6] / shown.sum(), features[6:12].mean(axis=0), np.zeros(2)]
    np.testing.assert_allclose(fan.told_logits(model, features, clips()), np.array(wanted) + 1, rtol=1e-6)


def test_arms_differ_in_attention_and_see_as_many_frames():
    frames = set()
    configs = {name: make(3) for name, make in fan.TRIAL.arms.items()}
    for config in configs.values():
        check_config(config)
        single = config.model.attention == "score_fusion"
        frames.add(config.train.batch_size * (1 if single else config.data.clip_frames) * config.train.max_steps)
    assert len(frames) == 1
    before = (("relation", "clip"), ("mean pooling", "anchor"), ("score fusion, dropout", "frames"))
    assert {configs[name].model[f"dropout_{place}"] for name, place in before} == {0.6}
    for config in configs.values():
        config.train.batch_size = 0
        config.model.update(attention="", dropout_anchor=0.0, dropout_frames=0.0)
    assert len({config.to_json() for config in configs.values()}) == 1
