"""The benchmark of noisy labels: valid configs, paired differences, corrected p-values."""

import numpy as np
import pytest

from experiments.comparison import holm, paired
from experiments.noise import COLUMNS, METHODS, config_of
from fer_jax.config.check import check_config


@pytest.mark.parametrize("method", METHODS)
def test_every_config_is_valid(method):
    for column in COLUMNS:
        check_config(config_of(column, method, seed=1))


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
