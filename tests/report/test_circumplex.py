"""The circumplex: valence and arousal of predictions and annotations in one plane."""

import numpy as np

from fer_jax.report import Predictions
from fer_jax.report.circumplex import circumplex_chart


def test_valence_lies_to_the_right_and_arousal_up():
    affect = np.array([[0.5, -0.25], [0.75, 0.25], [-0.5, 0.0]])
    truth = np.array([[0.25, 0.5], [np.nan, np.nan], [-1.0, 0.75]])
    predictions = Predictions(np.eye(2)[[0, 0, 1]], np.array([0, 0, 1]), affect=affect, true_affect=truth)
    (axes,) = circumplex_chart(["glad", "sad"], predictions).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("valence", "arousal")
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), affect)
    marks = [np.asarray(line.get_xydata()).tolist() for line in axes.lines[2:]]  # the first two are the axes' zero
    line, ring, disk = marks[:3]  # of annotated faces alone
    assert (line, ring, disk) == ([[0.5, -0.25], [0.25, 0.5]], [[0.25, 0.5]], [[0.5, -0.25]])
