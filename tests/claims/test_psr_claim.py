"""PSR's claim: what its arms share, and that it runs from end to end."""

import json

import numpy as np
import pytest
from etils import epath

from experiments.claims import psr, trial
from fer_jax.config.check import check_config
from fer_jax.errors import differences


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
    assert psr.TRIAL.start is not None
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
