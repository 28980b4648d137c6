"""PSR's claim: what its arms share, and that it runs from end to end."""

import json

import pytest
from etils import epath

from experiments.claims import psr, trial
from fer_jax.training.config import check_config, differences


def test_arms_differ_in_what_the_claim_is_about_and_in_nothing_else():
    configs = {name: make() for name, make in psr.TRIAL.arms.items()}
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
