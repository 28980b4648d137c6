"""Following a face: overlap, jumps, gaps, cuts, smoothing, and points that come and go."""

import numpy as np
import pytest

from fer_jax.faces.detection import Face
from fer_jax.faces.tracking import Tracker


def face(x, y=0.0, side=100.0, points=None):
    return Face((float(x), float(y), float(side), float(side)), 1.0, points)


def test_it_stays_with_its_face_when_a_larger_one_comes():
    tracker = Tracker(smoothing=0)
    for k in range(8):
        mine, other = face(100 + 5 * k), face(400 - 30 * k, 0, 150)
        assert tracker([other, mine] if k else [mine]).box == mine.box
    assert tracker.track == 0


def test_a_jump_without_overlap_goes_to_the_nearest_of_similar_size():
    tracker = Tracker(smoothing=0)
    tracker([face(0)])
    near, nearer_but_large = face(95, 0), face(90, 0, 160)
    assert tracker([nearer_but_large, face(-99), near]).box == near.box
    assert tracker([nearer_but_large]) is not None  # that overlaps with the last box
    assert tracker.track == 0


def test_a_face_elsewhere_is_not_ours():
    tracker = Tracker(smoothing=0)
    tracker([face(0)])
    assert tracker([face(300)]) is None
    assert tracker([face(0, 0, 20)]) is None  # inside, but five times smaller
    assert tracker([face(4)]).box == (4, 0, 100, 100)
    assert tracker.track == 0


def test_a_cut_begins_a_new_track():
    tracker = Tracker(patience=3)
    answers = [tracker([face(0)])] + [tracker([face(500)]) for _ in range(5)]
    assert [answer is not None for answer in answers] == [True, False, False, False, True, True]
    assert answers[4].box == (500, 0, 100, 100)  # nothing of the old place is mixed in
    assert tracker.track == 1


def test_gaps_are_not_bridged():
    tracker = Tracker(smoothing=0, patience=3)
    assert tracker([]) is None
    assert tracker.track == -1
    tracker([face(0)])
    assert [tracker([]) for _ in range(3)] == [None] * 3
    assert tracker([face(10)]).box == (10, 0, 100, 100)
    assert tracker.track == 0  # back where it was: the same face, however long it was away
    for _ in range(4):
        tracker([])
    tracker([face(900)])
    assert tracker.track == 1


def test_smoothing_is_exponential_and_forgets_over_gaps():
    tracker = Tracker(smoothing=0.4)
    assert tracker([face(0)]).box[0] == 0
    assert tracker([face(10)]).box[0] == pytest.approx(6)  # 0.4 * 0 + 0.6 * 10
    assert tracker([face(10)]).box[0] == pytest.approx(0.4 * 6 + 0.6 * 10)
    before = tracker([face(10)]).box[0]
    tracker([])
    assert tracker([face(20)]).box[0] == pytest.approx(0.16 * before + 0.84 * 20)


def test_smoothing_steadies_and_lags_as_documented():
    noise = np.random.default_rng(0).normal(0, 2, 400)
    tracker = Tracker()
    steady = np.array([tracker([face(x)]).box[0] for x in noise])
    assert np.diff(steady[5:]).std() < 0.55 * np.diff(noise[5:]).std()
    tracker = Tracker()
    moving = [tracker([face(6 * k)]).box[0] for k in range(30)]
    assert 6 * 29 - moving[-1] == pytest.approx(6 * 0.4 / 0.6)


def test_points_are_smoothed_and_move_along_when_they_are_missed():
    eyes = np.array([(30.0, 40.0), (70.0, 40.0)])
    tracker = Tracker(smoothing=0, patience=2)
    np.testing.assert_allclose(tracker([face(0, 0, 100, eyes)]).points, eyes)
    # 20 to the right, 10 larger around its middle: 0..100 -> 20..130.
    moved = tracker([face(20, 0, 110)]).points
    np.testing.assert_allclose(moved, (eyes - 49.5) * 1.1 + (74.5, 54.5))
    assert tracker([face(20)]).points is not None
    assert tracker([face(20)]).points is None  # they were seen too long ago
    np.testing.assert_allclose(tracker([face(20, 0, 100, eyes + 9)]).points, eyes + 9)
    tracker = Tracker(smoothing=0.5)
    tracker([face(0, 0, 100, eyes)])
    np.testing.assert_allclose(tracker([face(0, 0, 100, eyes + 4)]).points, eyes + 2)


def test_a_new_track_has_no_points_of_the_old_one():
    eyes = np.array([(30.0, 40.0), (70.0, 40.0)])
    tracker = Tracker(patience=1)
    tracker([face(0, 0, 100, eyes)])
    tracker([face(700)])
    assert tracker([face(700)]).points is None


def test_where_it_begins():
    left, right = face(0, 0, 50), face(300)
    assert Tracker()([left, right]).box == right.box
    assert Tracker(near=(20, 20))([left, right]).box == left.box
    assert Tracker(near=(5, 5, 50, 50))([right, left]).box == left.box


def test_bad_settings():
    for smoothing in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="smoothing"):
            Tracker(smoothing=smoothing)
    with pytest.raises(ValueError, match="patience"):
        Tracker(patience=0)
