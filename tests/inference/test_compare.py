"""Comparing runs: paired differences against closed forms, seeds, and what may not be paired."""

import numpy as np
import pytest
from etils import epath

from fer_jax.inference.compare import Compared, differences, short_names


def run(name, right, truth):
    right = np.atleast_2d(np.asarray(right, bool))
    return Compared(name, {}, {}, ("digest", ()), np.asarray(truth), right)


def test_differences_are_paired():
    """Of two classes, 1500 and 500 examples; both right on most, a alone on 60 and 20, b alone on 100 and 60."""
    truth = np.repeat([0, 1], [1500, 500])
    a, b = np.ones(2000, bool), np.ones(2000, bool)
    b[:60], b[1500:1520] = False, False
    a[60:160], a[1520:1580] = False, False
    accuracy, recall = differences(run("a", a, truth), run("b", b, truth))
    assert (accuracy.first, accuracy.second, accuracy.score) == ("a", "b", "accuracy")
    assert accuracy.difference == pytest.approx(80 / 2000)
    assert recall.difference == pytest.approx((40 / 1500 + 40 / 500) / 2)
    # The variance of a mean of differences in -1, 0, 1, and of the mean of two such means.
    half = 1.96 * np.sqrt((240 / 2000 - 0.04**2) / 2000)
    assert (accuracy.high - accuracy.low) / 2 == pytest.approx(half, rel=0.08)
    assert (accuracy.low + accuracy.high) / 2 == pytest.approx(0.04, abs=0.002)
    parts = [(160 / 1500 - (40 / 1500) ** 2) / 1500, (80 / 500 - (40 / 500) ** 2) / 500]
    assert (recall.high - recall.low) / 2 == pytest.approx(1.96 * np.sqrt(sum(parts)) / 2, rel=0.08)
    (same, _) = differences(run("a", a, truth), run("a again", a, truth))
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_seeds_widen_the_interval():
    """Two seeds of b that differ by 10 points: their spread enters, as it does not where both are alike."""
    truth, a = np.zeros(1000, int), np.arange(1000) < 700
    alike = np.stack([np.arange(1000) < 800] * 2)
    apart = np.stack([np.arange(1000) < 750, np.arange(1000) < 850])
    narrow, wide = (differences(run("a", a, truth), run("b", b, truth))[0] for b in (alike, apart))
    assert narrow.difference == wide.difference == pytest.approx(0.1)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_names_are_the_paths_without_what_they_share():
    paths = [epath.Path(p) for p in ("runs/fdrl/a", "runs/fdrl/b", "runs/acnn/a")]
    assert short_names(paths) == ["fdrl/a", "fdrl/b", "acnn/a"]
    assert short_names(paths[:1] * 2) == ["a", "a"]
