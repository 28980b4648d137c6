"""Following a face: overlap, jumps, gaps, cuts, smoothing, and points that come and go."""

import itertools

import numpy as np
import pytest

from fer_jax.faces import tracking
from fer_jax.faces.detection import Face
from fer_jax.faces.tracking import FRAME, Tracker, Tracks


def face(x, y=0.0, side=100.0, points=None):
    return Face((float(x), float(y), float(side), float(side)), 1.0, points)


@pytest.fixture
def raw(monkeypatch):
    """Boxes and points are as detected."""
    monkeypatch.setattr(tracking, "SMOOTHING", 0.0)


class At25:
    """A tracker of frames that follow each other at 25 a second: its patience lasts five of them."""

    def __init__(self):
        self.tracker, self.times = Tracker(), itertools.count()

    def __call__(self, faces):
        return self.tracker(faces, next(self.times) * FRAME)

    @property
    def track(self):
        return self.tracker.track


@pytest.mark.usefixtures("raw")
def test_it_starts_with_the_largest_face_and_stays_with_it_when_a_larger_one_comes():
    tracker = At25()
    assert tracker([face(600, 0, 50), face(100)]).box == (100, 0, 100, 100)
    for k in range(8):
        mine, other = face(100 + 5 * k), face(400 - 30 * k, 0, 150)
        assert tracker([other, mine]).box == mine.box
    assert tracker.track == 0


@pytest.mark.usefixtures("raw")
def test_a_jump_without_overlap_goes_to_the_nearest_of_similar_size():
    tracker = At25()
    tracker([face(0)])
    near, nearer_but_large = face(95, 0), face(90, 0, 160)
    assert tracker([nearer_but_large, face(-99), near]).box == near.box
    assert tracker([nearer_but_large]) is not None  # that overlaps with the last box
    assert tracker.track == 0


@pytest.mark.usefixtures("raw")
def test_a_face_elsewhere_is_not_ours():
    tracker = At25()
    tracker([face(0)])
    assert tracker([face(300)]) is None
    assert tracker([face(0, 0, 20)]) is None  # inside, but five times smaller
    assert tracker([face(4)]).box == (4, 0, 100, 100)
    assert tracker.track == 0


def test_a_cut_begins_a_new_track():
    tracker = At25()
    answers = [tracker([face(0)])] + [tracker([face(500)]) for _ in range(7)]
    assert [answer is not None for answer in answers] == [True, *[False] * 5, True, True]
    assert answers[6].box == (500, 0, 100, 100)  # nothing of the old place is mixed in
    assert tracker.track == 1


@pytest.mark.usefixtures("raw")
def test_gaps_are_not_bridged():
    tracker = At25()
    assert tracker([]) is None
    assert tracker.track == -1
    tracker([face(0)])
    assert [tracker([]) for _ in range(5)] == [None] * 5
    assert tracker([face(10)]).box == (10, 0, 100, 100)
    assert tracker.track == 0  # back where it was: the same face, however long it was away
    for _ in range(6):
        tracker([])
    tracker([face(900)])
    assert tracker.track == 1


def test_smoothing_is_exponential_and_forgets_over_gaps():
    tracker = At25()
    assert tracker([face(0)]).box[0] == 0
    assert tracker([face(10)]).box[0] == pytest.approx(6)  # 0.4 * 0 + 0.6 * 10
    assert tracker([face(10)]).box[0] == pytest.approx(0.4 * 6 + 0.6 * 10)
    before = tracker([face(10)]).box[0]
    tracker([])
    assert tracker([face(20)]).box[0] == pytest.approx(0.16 * before + 0.84 * 20)


def test_smoothing_steadies_and_lags_as_documented():
    noise = np.random.default_rng(0).normal(0, 2, 400)
    tracker = At25()
    steady = np.array([tracker([face(x)]).box[0] for x in noise])
    assert np.diff(steady[5:]).std() < 0.55 * np.diff(noise[5:]).std()
    tracker = At25()
    moving = [tracker([face(6 * k)]).box[0] for k in range(30)]
    assert 6 * 29 - moving[-1] == pytest.approx(6 * 0.4 / 0.6)


@pytest.mark.usefixtures("raw")
def test_points_move_along_when_they_are_missed():
    eyes = np.array([(30.0, 40.0), (70.0, 40.0)])
    tracker = At25()
    np.testing.assert_allclose(tracker([face(0, 0, 100, eyes)]).points, eyes)
    # 20 to the right, 10 larger around its middle: 0..100 -> 20..130.
    moved = tracker([face(20, 0, 110)]).points
    np.testing.assert_allclose(moved, (eyes - 49.5) * 1.1 + (74.5, 54.5))
    assert [tracker([face(20)]).points is None for _ in range(5)] == [*[False] * 4, True]  # seen too long ago
    np.testing.assert_allclose(tracker([face(20, 0, 100, eyes + 9)]).points, eyes + 9)


def test_points_are_smoothed():
    eyes, tracker = np.array([(30.0, 40.0), (70.0, 40.0)]), At25()
    tracker([face(0, 0, 100, eyes)])
    np.testing.assert_allclose(tracker([face(0, 0, 100, eyes + 5)]).points, eyes + 3)


def test_a_new_track_has_no_points_of_the_old_one():
    eyes = np.array([(30.0, 40.0), (70.0, 40.0)])
    tracker = At25()
    tracker([face(0, 0, 100, eyes)])
    assert [tracker([face(700)]) for _ in range(5)] == [None] * 5
    assert tracker([face(700)]).points is None


def test_patience_is_in_seconds_whatever_the_frame_rate():
    """At one frame a second a cut begins a new track at once, and no frame is lost."""
    tracker = Tracker()
    answers = [tracker([face(0 if second < 3 else 500)], second) for second in range(6)]
    assert all(answers)
    assert tracker.track == 1
    slow, fast = Tracker(), Tracker()
    for tracker in (slow, fast):
        tracker([face(0)], 0.0)
    assert fast([face(10)], FRAME).box[0] == pytest.approx(6)
    assert slow([face(10)], 1.0).box[0] == pytest.approx(10)  # nothing of what it saw a second ago


def test_all_faces_are_tracked_each_in_the_order_found():
    tracks = Tracks()
    assert [number for number, _ in tracks([face(0), face(300)], 0.0)] == [0, 1]
    assert [number for number, _ in tracks([face(305), face(5)], 0.04)] == [1, 0]
    # Both are near the second track: the one that overlaps more continues it, the other one is new.
    assert [number for number, _ in tracks([face(360), face(310)], 0.08)] == [2, 1]
    assert tracks([], 0.12) == []
    assert [number for number, _ in tracks([face(310)], 0.16)] == [1]
    assert [number for number, _ in tracks([face(310)], 1.0)] == [1]  # it was in the frame before
    assert tracks([], 1.04) == []
    assert [number for number, _ in tracks([face(310)], 2.0)] == [3]  # nobody was seen for too long
