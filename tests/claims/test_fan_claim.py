"""FAN's claim: its measures on weights whose worth is known, and its arms."""

import numpy as np
import pytest

from experiments.claims import fan
from fer_jax.config.check import check_config
from fer_jax.data.sources.source import Source
from fer_jax.errors import UserError

INTENSITY = np.array([0, 0.1, 0.5, 1.0, 0.6, 0.2], np.float32)


def clips():
    """An expressive clip with a masked and an occluded frame, a neutral one, and one without a face."""
    length = np.array([6, 6, 2], np.int32)
    arrays = {"length": length, "start": np.array([0, 6, 12], np.int32), "label": np.array([1, 0, 1], np.int32)}
    mask = np.ones(14, bool)
    mask[[0, 12, 13]] = False
    frames = {
        "frames": np.zeros((14, 2, 2, 3), np.uint8),
        "frame_mask": mask,
        "frame_intensity": np.concatenate([INTENSITY, np.zeros(8, np.float32)]),
        "occluded_fraction": np.where(np.arange(14) == 2, 0.3, 0.0).astype(np.float32),
    }
    return Source("known/clips", "test", ("neutral", "happy"), arrays, np.arange(3), frames)


def weights_of(first):
    first = np.asarray(first, float)
    return np.concatenate([first / first.sum(), np.full(6, 1 / 6), [0, 0]])


def test_weights_that_follow_the_truth():
    measured = fan.attended(weights_of(INTENSITY), clips())
    assert measured["spearman"] == pytest.approx(1)
    # Shares of 5 faces: the apex frame 1 / 2.4, the four others 1.4 / 2.4 together.
    assert measured["apex to others"] == pytest.approx(1.0 / 0.35)
    assert measured["occluded to free"] == pytest.approx(0.5 / (1.9 / 4))
    assert measured["masked"] == 0


def test_weights_against_the_truth_and_equal_ones():
    against = fan.attended(weights_of([0, 1, 0.5, 0.1, 0.4, 0.9]), clips())
    assert against["spearman"] == pytest.approx(-1)
    assert against["apex to others"] < 0.2
    equal = fan.attended(weights_of([0, 1, 1, 1, 1, 1]), clips())
    assert equal["spearman"] == 0
    assert equal["apex to others"] == pytest.approx(1)
    assert equal["occluded to free"] == pytest.approx(1)


def test_a_weight_behind_the_mask_is_no_measurement():
    with pytest.raises(UserError, match="frames without a face have a weight of 0.1"):
        fan.attended(weights_of([0.1, 0.2, 0.2, 0.2, 0.2, 0.1]), clips())


def test_arms_differ_in_attention_and_see_as_many_frames():
    configs = {name: make(3) for name, make in fan.TRIAL.arms.items()}
    frames = set()
    for config in configs.values():
        check_config(config)
        single = config.model.attention == "score_fusion"
        frames.add(config.train.batch_size * (1 if single else config.data.clip_frames) * config.train.max_steps)
        config.train.batch_size, config.model.attention = 0, ""
    assert len(frames) == 1
    assert len({config.to_json() for config in configs.values()}) == 1
    names = {c.ours for c in fan.TRIAL.comparisons} | {
        c.theirs for c in fan.TRIAL.comparisons if isinstance(c.theirs, str)
    }
    assert names <= set(configs)
    measured = {"accuracy", *fan.attended(weights_of(INTENSITY), clips())}
    assert {c.measure for c in fan.TRIAL.comparisons} <= measured
