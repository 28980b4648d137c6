"""The benchmark of noisy labels: valid configs, paired differences, corrected p-values."""

import numpy as np
import pytest

from experiments.comparison import holm, paired
from experiments.noise import COLUMNS, METHODS, PROBES, config_of, probe_config
from experiments.noise_knowledge import coverage, cured
from fer_jax.config.check import check_config


@pytest.mark.parametrize("method", METHODS)
def test_every_config_is_valid(method):
    for column in COLUMNS:
        check_config(config_of(column, method, seed=1))
    check_config(config_of("real", method, seed=1, full=True))
    for value in PROBES[method][1] if method in PROBES else ():
        config = probe_config(method, value)
        check_config(config)
        assert (config.data.validation_split, config.data.test_split) == ("", "public_test")


def test_the_difference_is_paired_by_example():
    """12 of 400 examples more: less than what two samples of 400 differ by, but nothing is lost anywhere."""
    first = (np.random.default_rng(1).random((1, 400)) < 0.5).astype(float)
    better = first.copy()
    better[0, np.flatnonzero(first[0] == 0)[:12]] = 1
    difference, low, high, p = paired(first, better)
    assert difference == pytest.approx(0.03)
    assert 0.01 < low < high < 0.05
    assert p < 0.01
    assert paired(first, first)[3] == 1


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}


def test_relabeling_and_dropping_by_hand():
    """Of 100 labels 30 are wrong: 20 are relabeled, 12 of them rightly; 40 are dropped, 24 of them wrong."""
    log = {"monitor/relabeled": 0.2, "monitor/relabeled_rightly": 0.12, "selected": 0.6, "selected_wrong": 0.2}
    found = cured(log, 0.3)
    assert found["relabeling"] == pytest.approx({"precision": 0.6, "recall": 0.4})
    assert found["dropping"] == pytest.approx({"precision": 0.6, "recall": 0.8})
    assert cured(dict.fromkeys(log, 0.0), 0.3)["relabeling"] == {"precision": None, "recall": 0}


def test_accuracy_of_the_most_certain():
    right = np.array([True, False] * 5)
    assert coverage(right, np.where(right, 1.0, 0.0)) == pytest.approx([0.5, 5 / 9, 5 / 8, 5 / 7, 5 / 6, 1])
