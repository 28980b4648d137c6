"""FER+'s target rules: the authors' loops on single rows, the published counts on the real votes."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data.targets import votes as targets
from fer_jax.data.targets.labeled import attach_targets
from fer_jax.errors import UserError

UNKNOWN = 8


def one_row(votes, rule):
    """The rules for one picture, step by step as section "clean-up" of the authors' code has them."""
    left = [v if v > 1 else 0 for v in votes]
    total = sum(left)
    chosen = [0] * 10
    if rule == "majority":
        top = max(left)
        if top > 0.5 * total:
            chosen[left.index(top)] = top
    elif rule == "multi_target":
        chosen = [v if v >= 0.3 * total else 0 for v in left]
        if sum(chosen) <= 0.5 * total:
            chosen = [0] * 10
    else:
        taken, count, valid = 0, 0, True
        while taken < 0.75 * total and count < 3 and valid:
            top = max(left)
            for i in range(10):
                if left[i] == top:
                    chosen[i], left[i] = top, 0
                    taken, count = taken + top, count + 1
                    if i >= UNKNOWN:
                        valid = False
                        if sum(chosen) > top:
                            chosen[i], count = 0, count - 1
                        break
        if sum(chosen) <= 0.5 * total or count > 3:
            chosen = [0] * 10
    if sum(chosen) == 0 or int(np.argmax(chosen)) >= UNKNOWN:
        return None
    return np.array(chosen[:8]) / sum(chosen[:8])


votes_row = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 7, 10]), min_size=10, max_size=10).filter(any)


@pytest.mark.parametrize("rule", ["majority", "probability", "cross_entropy", "multi_target"])
@settings(max_examples=50, deadline=None)
@given(rows=st.lists(votes_row, min_size=1, max_size=20))
def test_all_rows_at_once_equal_one_row_at_a_time(rule, rows):
    keep, target = targets.ferplus_targets(np.array(rows), rule)
    for i, row in enumerate(rows):
        expected = one_row(row, rule)
        assert keep[i] == (expected is not None)
        np.testing.assert_allclose(target[i], np.zeros(8) if expected is None else expected, atol=1e-7)


def test_a_tie_is_rejected_by_majority_and_shared_by_cross_entropy():
    row = np.array([[4, 0, 0, 4, 1, 0, 0, 0, 1, 0]])
    keep, target = targets.ferplus_targets(row, "majority")
    assert not keep[0]
    assert not target.any()
    keep, target = targets.ferplus_targets(row, "cross_entropy")
    assert keep[0]
    np.testing.assert_array_equal(target[0], [0.5, 0, 0, 0.5, 0, 0, 0, 0])


@pytest.mark.parametrize("rule", targets.RULES)
@pytest.mark.parametrize("column", [8, 9])
def test_ten_votes_for_no_emotion_are_dropped(rule, column):
    votes = np.zeros((1, 10), np.int64)
    votes[0, column] = 10
    keep, target = targets.ferplus_targets(votes, rule)
    assert not keep[0]
    assert not target.any()


@pytest.mark.parametrize("rule", targets.RULES)
def test_rows_without_votes_and_empty_tables(rule):
    keep, target = targets.ferplus_targets(np.zeros((2, 10), np.int64), rule)
    assert not keep.any()
    assert not target.any()
    keep, target = targets.ferplus_targets(np.zeros((0, 10), np.int64), rule)
    assert keep.shape == (0,)
    assert target.shape == (0, 8)


def test_argmax_takes_the_first_of_equals():
    keep, target = targets.ferplus_targets(np.array([[0, 3, 0, 3, 0, 0, 0, 0, 3, 1]]), "argmax")
    assert keep[0]
    assert target[0].argmax() == 1


def test_votes_as_they_are_keep_single_ones():
    votes = np.array([[4, 1, 0, 1, 0, 0, 0, 0, 3, 1], [2, 1, 0, 0, 0, 0, 0, 0, 7, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]])
    keep, target = targets.ferplus_targets(votes, "votes")
    np.testing.assert_array_equal(keep, [True, False, True])  # nobody learns a face that most take for none
    np.testing.assert_allclose(target[keep], [[4 / 6, 1 / 6, 0, 1 / 6, 0, 0, 0, 0], [1 / 8] * 8], rtol=1e-6)


def test_vote_distribution_leaves_out_unknown_and_nf():
    votes = np.array([[4, 0, 0, 1, 0, 0, 0, 0, 3, 2], [0, 0, 0, 0, 0, 0, 0, 0, 5, 5]])
    np.testing.assert_allclose(targets.vote_distribution(votes), [[0.8, 0, 0, 0.2, 0, 0, 0, 0], [0] * 8], atol=1e-7)


def test_draws_by_probability_average_to_the_cross_entropy_target():
    votes = np.array([[4, 0, 0, 4, 1, 0, 0, 0, 1, 0], [6, 3, 0, 0, 0, 0, 0, 0, 1, 0]])
    _, probability = targets.ferplus_targets(votes, "probability")
    _, expected = targets.ferplus_targets(votes, "cross_entropy")
    drawn = jax.random.categorical(jax.random.key(0), jnp.log(probability + 1e-30), shape=(20000, 2))
    mean = np.stack([np.bincount(drawn[:, i], minlength=8) / len(drawn) for i in range(2)])
    np.testing.assert_allclose(mean, expected, atol=0.02)  # five standard errors of 20,000 draws


@pytest.fixture(scope="module")
def packed(real_data):
    spec = importlib.util.spec_from_file_location("packed_fer2013", real_data / "fer2013.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with np.load(script.PACKED) as arrays:
        names = ("usage", "ferplus_votes", "ferplus_label_votes", "ferplus_in_label_csv")
        return {name: arrays[name] for name in names}


def kept(packed, file, rule):
    """Returns the split of the kept pictures and their targets."""
    there = packed["ferplus_in_label_csv"] if file == "label" else np.ones(len(packed["usage"]), bool)
    votes = packed["ferplus_label_votes" if file == "label" else "ferplus_votes"]
    keep, target = targets.ferplus_targets(votes[there], rule)
    return packed["usage"][there][keep], target[keep]


@pytest.mark.parametrize(
    ("file", "rule", "counts", "several"),
    [
        ("label", "majority", (25045, 3191, 3137), 0),
        ("label", "probability", (27947, 3508, 3507), 8926),
        ("label", "cross_entropy", (27947, 3508, 3507), 8926),
        ("label", "multi_target", (27667, 3472, 3466), 7124),
        ("new", "majority", (25060, 3199, 3153), 0),
        ("new", "argmax", (28389, 3553, 3546), 0),
        ("new", "votes", (28389, 3553, 3546), None),  # the same pictures
    ],
)
def test_published_counts(packed, file, rule, counts, several):
    split, target = kept(packed, file, rule)
    assert tuple(np.bincount(split, minlength=3)) == counts
    if several is not None:
        assert ((target > 0).sum(axis=1) > 1)[split == 0].sum() == several
    np.testing.assert_allclose(target.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "split", "counts"),
    [
        ("label", 0, (8733, 7284, 3136, 3022, 2098, 116, 536, 120)),
        ("label", 1, (1180, 862, 411, 348, 289, 25, 60, 16)),
        ("label", 2, (1083, 892, 394, 382, 269, 16, 86, 15)),
        ("new", 0, (8740, 7287, 3149, 3014, 2100, 119, 532, 119)),
        ("new", 1, (1182, 865, 415, 351, 287, 24, 62, 13)),
        ("new", 2, (1090, 893, 396, 384, 273, 18, 83, 16)),
    ],
)
def test_published_class_counts_of_the_majority(packed, file, split, counts):
    splits, target = kept(packed, file, "majority")
    assert tuple(np.bincount(target[splits == split].argmax(axis=1), minlength=8)) == counts


def test_published_statistics_of_the_votes(packed):
    """Mean top share .736, 21.5 % unanimous, 1,365 ties for the top emotion in label.csv's training part."""
    votes = packed["ferplus_label_votes"][packed["ferplus_in_label_csv"] & (packed["usage"] == 0)].astype(int)
    assert len(votes) == 28558
    assert abs((votes.max(axis=1) / votes.sum(axis=1)).mean() - 0.736) < 1e-3
    unanimous = (votes.max(axis=1) == votes.sum(axis=1)).mean()
    assert abs(unanimous - 0.215) < 1e-3
    emotions = votes[:, :8]
    ties = (emotions == emotions.max(axis=1, keepdims=True)).sum(axis=1) > 1
    assert ties.sum() == 1365
    assert (ties & (emotions.max(axis=1) == 0)).sum() == 2  # counted among them: no vote for any emotion


def test_votes_that_this_copy_does_not_have():
    arrays = {"votes_label": np.zeros((3, 10), np.int32), "has_label": np.zeros(3, bool)}
    with pytest.raises(UserError, match="config.data.votes='votes_label': no example has such votes"):
        attach_targets(arrays, (), rule="majority", votes="votes_label", training=True)
