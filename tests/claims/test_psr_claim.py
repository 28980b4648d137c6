"""PSR's claim: what its faces from afar are, what its arms share, and that it runs from end to end."""

import json

import numpy as np
import pytest
from etils import epath

from experiments.claims import psr, trial
from fer_jax.data.source import Source
from fer_jax.training.config import check_config, differences


def source(images):
    label = np.zeros(len(images), np.int32)
    return Source("known", "test", ("a",), {"image": images, "label": label}, np.arange(len(images)))


def test_faces_from_afar_keep_large_shapes_and_lose_details():
    rng = np.random.default_rng(0)
    stripes = np.tile(np.array([0, 255], np.uint8), 32)[None, None, :, None] * np.ones((1, 64, 1, 3), np.uint8)
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None, None], (1, 64, 64, 3))
    noise = rng.integers(0, 256, (1, 64, 64, 3), np.uint8)
    whole = source(np.concatenate([stripes, ramp, noise]))
    spread = []
    for size in psr.SIZES:
        image = psr.from_afar(whole, size).arrays["image"]
        assert image.shape == (3, 64, 64, 3)
        assert image.dtype == np.uint8
        assert np.abs(image[1, 4:-4].astype(int) - ramp[0, 4:-4]).max() <= 6  # a slope survives
        spread.append(image[2].std())
    assert (np.diff(spread) > 3).all()  # the smaller, the less is left of what has no shape
    assert psr.from_afar(whole, 32).arrays["image"][0].std() < 2  # and nothing of one-pixel stripes


def test_arms_differ_in_what_the_claim_is_about_and_in_nothing_else():
    configs = {name: make(3) for name, make in psr.TRIAL.arms.items()}
    for config in configs.values():
        check_config(config)
    ours = configs["PSR"].to_dict()
    slowly = {"optimizer.groups"}  # of the super-resolution that only PSR has
    changed = {
        name: {line.split(":")[0] for line in differences(config.to_dict(), ours)} for name, config in configs.items()
    }
    assert changed == {
        "PSR": set(),
        "bicubic pyramid": {"model.upsampler", *slowly},
        "single scale": {"model.multiples", *slowly},
        "label smoothing": {"model.multiples", "data.smoothing_prior", *slowly},
    }
    start = psr.TRIAL.start()
    check_config(start)
    assert (start.model.blocks, start.model.width) == (configs["PSR"].model.sr_blocks, configs["PSR"].model.sr_width)
    assert start.data.image_size == configs["PSR"].data.image_size


def test_what_a_branch_is_worth():
    """Branch 1 alone knows the first half, branch 3 the second; 2 says nothing of any."""
    label = np.arange(8) % 2
    sure = np.where(np.eye(2)[label] == 1, 4.0, -4.0)
    first = np.arange(8)[:, None] < 4
    logits = np.stack([np.where(first, sure, 0), np.zeros((8, 2)), np.where(first, 0, sure)], axis=-1)
    np.testing.assert_allclose(psr.worths(logits, label), [0.25, 0, 0.25])  # without it a half is guessed as class 0
    assert psr.worths(logits[..., :1], label) == [0]
    measured = {psr.branch(number) for number in psr.SMALLER}
    assert measured <= {c.measure for c in psr.TRIAL.comparisons}


@pytest.mark.slow
def test_the_whole_trial_in_small(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    monkeypatch.setattr(psr, "TEST_FACES", 40)
    record = trial.run(psr.TRIAL, 2, epath.Path(tmp_path / "runs"), tmp_path / "out", max_steps=2)
    started = json.loads((tmp_path / "runs" / "PSR" / "seed1" / "results.json").read_text())["started_from"]
    assert "psr_sr" in json.dumps(started)
    started = json.loads((tmp_path / "runs" / "bicubic_pyramid" / "seed1" / "results.json").read_text())["started_from"]
    assert started == "scratch"
    assert len(record["comparisons"]) == len(psr.TRIAL.comparisons)
    assert set(record["arms"]) == set(psr.TRIAL.arms)
