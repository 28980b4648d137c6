"""The comparison of augmentations: valid configs that never read private_test, and a table of paired differences."""

import json

import numpy as np
import pytest

from experiments import augmentation, comparison
from experiments.augmentation import COMPARED, ONCE, SPLIT, config_of, recipe, table
from experiments.comparison import facts, packed
from fer_jax.config.check import check_config
from fer_jax.config.fields import leaves


@pytest.mark.parametrize("arm", COMPARED | ONCE)
def test_every_config_is_valid_and_differs_in_one_thing(arm):
    config, control = config_of(arm, seed=1), config_of("none", seed=1)
    check_config(config)
    data = config.data
    assert (data.validation_split, data.test_split, config.selection.rule) == ("", "public_test", "last")
    assert data.holdout_fraction == 0
    fields = zip(leaves(config, ()), leaves(control, ()), strict=True)
    assert sum(field != same for field, same in fields) == (arm != "none")
    assert set(control.augmentation.train) <= set(config.augmentation.train)


def test_arms_are_compared_on_the_seeds_that_they_share(tmp_path):
    """Mixup is right about 20 of 200 pictures more; AugMix, of one seed, is as its own seed of the control."""
    rng = np.random.default_rng(0)
    right = {seed: rng.random(200) < 0.5 for seed in range(2)}
    records = [("none", seed, right[seed]) for seed in range(2)] + [("augmix", 0, right[0])]
    for seed in range(2):
        better = right[seed].copy()
        better[np.flatnonzero(~better)[:20]] = True
        records.append(("mixup", seed, better))
    here = {"device": "cpu", "versions": {"jax": "0.10.1"}, "git_commit": "abc", "wall_seconds": 30.0}
    (tmp_path / SPLIT).mkdir()
    for arm, seed, answers in records:
        record = {"arm": arm, "seed": seed, "right": packed(answers), "examples": 200, "accuracy": answers.mean()}
        record |= dict.fromkeys(("mean_recall", "nll", "ece"), 0.5) | facts(recipe(), here)
        (tmp_path / SPLIT / f"{arm}_seed{seed}.json").write_text(json.dumps(record))
    rows = {line.split(" | ")[0]: line.split(" | ") for line in table(tmp_path).splitlines() if line.startswith("| ")}
    assert rows["| mixup"][3].startswith("+10.0 (+")
    assert float(rows["| mixup"][4]) < 0.05
    assert rows["| augmix"][3:5] == ["+0.0 (+0.0 to +0.0)", "1.000"]
    assert rows["| none"][3] == ""
    assert "commit: abc; device: cpu; versions: jax 0.10.1; seeds: 0, 1; test examples: 200;" in table(tmp_path)
    (tmp_path / SPLIT / "none_seed0.json").unlink()  # AugMix has no seed of the control
    assert "| augmix | 1 | " in table(tmp_path)


def test_a_run_is_recorded_and_not_repeated(tiny, tmp_path, monkeypatch, capsys):
    def small(arm, seed):
        config = tiny()
        config.selection.rule, config.seed = "last", seed
        return config

    monkeypatch.setattr(augmentation, "config_of", small)
    monkeypatch.setattr(augmentation, "SPLIT", "test")
    for setting in ("keep_freed_memory", "use_compilation_cache"):  # they would outlast the test
        monkeypatch.setattr(comparison, setting, lambda: None)
    arguments = ["--arms=none", "--seeds=1", f"--out={tmp_path / 'out'}", f"--workdir={tmp_path / 'runs'}"]
    data_dir = small("none", 0).data.data_dir
    for _ in range(2):
        assert augmentation.main([*arguments, f"--data_dir={data_dir}"]) == 0
    assert capsys.readouterr().out.count("test, none_seed0\n") == 1
    assert "| none | 1 | " in (tmp_path / "out.md").read_text()
