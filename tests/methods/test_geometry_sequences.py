"""Geometry of sequences: DTW, tracks, boosting by hand, and what the first frame is worth."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_geometry_stills import ORDER, face, mirror_of_pairs, mirrored, moved

from fer_jax.errors import UserError
from fer_jax.methods import geometry_sequences
from fer_jax.methods.geometry_sequences import dtw, resampled, samme, score, tracks, upright
from fer_jax.methods.method import Config

CLASSES = 3
MODEL = geometry_sequences.Model(num_classes=CLASSES, rounds=20, support=64)
FRAMES = 15


def clips(count, seed=0, people=0.0):
    """Clips [N, T, 68, 2] of faces that go from neutral to the apex of an expression, and the classes [N]."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % CLASSES
    rise = np.linspace(0, 1, FRAMES)[None, :, None, None] ** rng.uniform(0.6, 1.6, (count, 1, 1, 1))
    shape = face() + people * rng.normal(0, 1, (count, 1, 68, 2))
    apex = np.zeros((count, 1, 68, 2))
    apex[:, 0, (48, 54, 60, 64), 1] = ((label == 1) * -8.0)[:, None]
    apex[:, 0, 55:60, 1] = ((label == 2) * 10.0)[:, None]
    return (shape + rise * apex + rng.normal(0, 0.4, (count, FRAMES, 68, 2))).astype(np.float32), label


def batch_of(points):
    return {"points": points, "frame_mask": np.ones(points.shape[:2], bool)}


def fitted(points, label, **fields):
    model = dataclasses.replace(MODEL, **fields)
    blank = jax.jit(lambda: model.init(jax.random.key(0), batch_of(jnp.asarray(points[:2])), train=False))()
    aux = jax.jit(lambda p: model.apply(blank, batch_of(p), train=False)[1])(points)
    found = geometry_sequences.fit(model, np.asarray(aux["features"]), np.eye(CLASSES)[label], 0)
    params = blank["params"] | {name: jnp.asarray(v, jnp.float32) for name, v in found.items() if "/" not in name}
    machine = {name.partition("/")[2]: jnp.asarray(v, jnp.float32) for name, v in found.items() if "/" in name}
    return model, {"params": params | ({"classifier": machine} if machine else {})}


def logits_of(fit, points):
    return np.asarray(jax.jit(lambda p: fit[0].apply(fit[1], batch_of(p), train=False)[0])(points))


def accuracy(fit, points, label):
    return float((logits_of(fit, points).argmax(axis=1) == label).mean())


def plain_dtw(x, y, window):
    """The recursion, cell by cell."""
    cost = np.full((len(x) + 1, len(y) + 1), np.inf)
    cost[0, 0] = 0
    for i in range(len(x)):
        for j in range(max(0, i - window), min(len(y), i + window + 1)):
            here = min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
            cost[i + 1, j + 1] = np.linalg.norm(x[i] - y[j]) + here
    return cost[-1, -1]


def test_dtw():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 12, 2)).astype(np.float32)
    for window in (0, 3, 12):
        ours = np.asarray(dtw(x, y, window))
        np.testing.assert_allclose(ours, [plain_dtw(*pair, window) for pair in zip(x, y, strict=True)], rtol=1e-5)
        np.testing.assert_array_equal(ours, dtw(y, x, window))
    assert not np.asarray(dtw(x, x, 3)).any()
    np.testing.assert_allclose(dtw(x[:, None], y[None], 3)[2, 4], dtw(x[2], y[4], 3), rtol=1e-6)


def test_a_stretched_copy_costs_less_than_another_class():
    points, label = clips(6)
    late = np.linspace(0, 1, FRAMES) ** 1.5 * (FRAMES - 1)
    low = np.minimum(late.astype(int), FRAMES - 2)
    stretched = points[:, low] + (late - low)[None, :, None, None].astype("f") * (points[:, low + 1] - points[:, low])
    everything = np.ones((6, FRAMES), bool)
    ours, theirs = (
        np.swapaxes(tracks(resampled(upright(p), everything, 12, True), True), 1, 2) for p in (points, stretched)
    )
    cost = np.asarray(dtw(ours[:, None], theirs[None], 3)).sum(axis=-1)  # over all features
    for n in range(6):
        assert cost[n, n] < cost[n, label != label[n]].min()


def test_tracks_do_not_depend_on_place_size_and_roll_and_start_at_zero():
    points, _ = clips(2)
    positions = resampled(upright(points), np.ones(points.shape[:2], bool), 12, True)
    ours = np.asarray(tracks(positions, True))
    assert ours.shape == (2, 12, 68 + 2278, 2)
    assert not ours[:, 0].any()
    other = moved(points, 30, 1.7, (20, -5))
    theirs = tracks(resampled(upright(other), np.ones(points.shape[:2], bool), 12, True), True)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_a_mirrored_clip_has_mirrored_tracks():
    """Landmarks move to the other side, pairs turn the other way."""
    points, _ = clips(2)
    everything = np.ones(points.shape[:2], bool)
    ours, theirs = (
        np.asarray(tracks(resampled(upright(p), everything, 12, True), True)) for p in (points, mirrored(points))
    )
    index = np.concatenate([ORDER, 68 + np.array(mirror_of_pairs())])
    sign = np.ones((68 + 2278, 2))
    sign[:68, 0], sign[68:, 1] = -1, -1
    np.testing.assert_allclose(theirs, ours[:, :, index] * sign, atol=1e-4)


def test_frames_without_landmarks_are_left_out():
    points, _ = clips(3)
    mask = np.ones(points.shape[:2], bool)
    mask[0, 4:] = False
    points[1, 10:] = np.nan
    mask[2] = False
    found = np.asarray(resampled(points, mask, 12, True))
    np.testing.assert_allclose(found[0, [0, -1]], points[0, [0, 3]], rtol=1e-6)
    np.testing.assert_allclose(found[1, [0, -1]], points[1, [0, 9]], rtol=1e-6)
    assert np.isnan(found[2]).all()
    mask[0, 0], points[1, 0] = False, np.nan  # no later frame stands in for the neutral face
    assert np.isnan(resampled(points, mask, 12, True)).all()
    np.testing.assert_allclose(resampled(points, mask, 12, False)[0, 0], points[0, 1], rtol=1e-6)


def test_samme_by_hand():
    """Three examples of three classes; the first weak classifier errs on the last, the second on the others."""
    predicted, label = np.array([[0, 1], [1, 2], [0, 2]]), np.array([0, 1, 2])
    chosen, alpha = samme(predicted, label, 3, rounds=2)
    assert chosen == [0, 1]
    first = np.log(2) + np.log(2)  # e = 1 / 3
    weights = np.array([1, 1, np.exp(first)]) / (2 + np.exp(first))
    error = weights[:2].sum()
    np.testing.assert_allclose(alpha, [first, np.log((1 - error) / error) + np.log(2)], rtol=1e-5)
    assert samme(np.array([[1], [2], [0]]), label, 3, rounds=5) == ([], [])  # worse than chance
    assert len(samme(label[:, None], label, 3, rounds=5)[0]) == 1  # no error: nothing is left to boost


@pytest.mark.parametrize("learner", geometry_sequences.LEARNERS)
def test_it_learns_and_shuffled_labels_give_chance(learner):
    points, label = clips(45)
    unseen, truth = clips(60, seed=1)
    fit = fitted(points, label, learner=learner)
    assert accuracy(fit, unseen, truth) > 0.9
    assert accuracy(fit, mirrored(unseen), logits_of(fit, unseen).argmax(axis=1)) > 0.95  # classified alike
    shuffled = np.random.default_rng(0).permutation(label)
    assert abs(accuracy(fitted(points, shuffled, learner=learner), unseen, truth) - 1 / 3) < 0.25


@pytest.mark.slow
def test_all_pairs_of_as_many_clips_as_ckplus_has_take_less_than_five_minutes():
    points, label = clips(327)
    positions = np.asarray(resampled(upright(points), np.ones(points.shape[:2], bool), 12, True))
    began = time.perf_counter()
    prototypes = np.stack([geometry_sequences.median_tracks(positions[label == c], True) for c in range(CLASSES)])
    found = geometry_sequences.distances_from(positions, prototypes[np.arange(7) % CLASSES], MODEL)
    assert time.perf_counter() - began < 300
    assert found.shape == (327, 7, 68 + 2278)


def test_clips_that_may_not_begin_neutral_are_named(capsys):
    config: Config = __import__("experiments.geometry_sequences", fromlist=["_"]).get_config("smoke")
    for dataset in ("synthetic_faces/clips", "afew/aligned", "afew/aligned"):
        config.data.dataset = dataset
        geometry_sequences.check(config)
    assert capsys.readouterr().err.count("clips of afew/aligned may not begin with a neutral face") == 1


def test_the_first_frame_makes_people_alike():
    points, label = clips(30, people=6.0)
    unseen, truth = clips(60, seed=1, people=6.0)
    ours, control = (accuracy(fitted(points, label, first_frame=first), unseen, truth) for first in (True, False))
    assert ours > control + 0.2


def test_clips_without_movement_are_not_classified(capsys):
    """Those without landmarks, those with a single frame that has any, and those without them in the first one."""
    points, label = clips(12)
    points[5], points[6, 1:], points[7, 0] = np.nan, np.nan, np.nan
    logits = logits_of(fitted(points, label), points)
    assert "3 of 12 training clips have landmarks in fewer than two frames" in capsys.readouterr().out
    np.testing.assert_array_equal(np.ptp(logits, axis=1) == 0, np.isin(np.arange(12), (5, 6, 7)))
    assert score(MODEL, logits, label)["coverage"] == 9 / 12
    with pytest.raises(UserError, match="fewer than two classes"):
        geometry_sequences.fit(MODEL, np.full((3, 12 * 136), np.nan), np.eye(3), 0)
