"""The benchmark of noisy labels: valid configs, paired differences, corrected p-values."""

import numpy as np
import pytest

from experiments.noise import COLUMNS, METHODS, config_of, holm, paired
from fer_jax.config.check import check_config


@pytest.mark.parametrize("method", METHODS)
def test_every_config_is_valid(method):
    for column in COLUMNS:
        check_config(config_of(column, method, seed=1))


def test_the_difference_is_paired_by_example():
    generator = np.random.default_rng(1)
    first = (generator.random((3, 400)) < 0.5).astype(float)
    better = first.copy()
    better[:, :20] = 1  # wins among 20 examples only: unpaired, the noise of the others would hide it
    difference, low, high, p = paired(first, better)
    assert difference == pytest.approx((1 - first[:, :20]).sum() / 1200)
    assert low < difference < high
    same = paired(first, first)
    assert same[0] == 0
    assert same[3] > 0.9
    assert p < same[3]


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}
