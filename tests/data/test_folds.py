"""Folds: who is tested with whom, and that nobody trains who is tested."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_jax.data.sources import folds
from fer_jax.data.sources.source import Source, split_off, take_fold
from fer_jax.errors import UserError

subjects = st.lists(st.integers(0, 40), min_size=2, max_size=120).map(np.array)


def source(fold, subject=None):
    n = len(fold)
    label = np.arange(n, dtype=np.int32) % 3
    arrays = {"label": label, "index": np.arange(n, dtype=np.int32), "fold": np.asarray(fold, np.int32)}
    arrays["image"] = np.arange(n, dtype=np.uint8)[:, None, None, None]
    if subject is not None:
        arrays["subject"] = np.asarray(subject)
    return Source("x", "all", ("a", "b", "c"), arrays, np.arange(n) + 100, folds=int(max(fold)) + 1)


def test_a_fold_is_the_rank_of_the_subject_modulo_k():
    """Numbers with gaps, as CK+ has them (S005, S010, ...), in no order: the rank counts, not the number."""
    subject = np.array([130, 5, 22, 5, 11, 999, 10, 22, 26, 130])
    order = {5: 0, 10: 1, 11: 2, 22: 3, 26: 4, 130: 5, 999: 6}
    for k in (2, 3, 7):
        assert folds.subject_folds(subject, k).tolist() == [order[number] % k for number in subject.tolist()]
    assert folds.subject_folds(subject).tolist() == [order[number] for number in subject.tolist()]
    assert np.bincount(folds.subject_folds(subject, 3)).tolist() == [5, 2, 3]


def test_118_people_in_ten_folds_are_twelve_or_eleven_to_a_fold():
    subject = np.random.default_rng(0).choice(1000, 118, replace=False)
    assert np.bincount(folds.subject_folds(subject, 10)).tolist() == [12] * 8 + [11] * 2


@given(subjects, st.integers(2, 12))
def test_every_example_is_tested_once_and_no_subject_is_on_both_sides(subject, k):
    people = len(np.unique(subject))
    if people < k:
        with pytest.raises(UserError, match=f"there are {people} subjects"):
            folds.subject_folds(subject, k)
        return
    data = source(folds.subject_folds(subject, k), subject)
    times = np.zeros(len(subject), int)
    for number in range(1, k + 1):
        rest, fold = take_fold(data, number)
        assert not set(rest.arrays["subject"].tolist()) & set(fold.arrays["subject"].tolist())
        assert sorted([*rest.rows.tolist(), *fold.rows.tolist()]) == data.rows.tolist()
        times[fold.rows - 100] += 1
        if len(np.unique(rest.arrays["subject"])) > 1:
            train, held = split_off(rest, 0.1, seed=0)
            sides = [set(part.arrays["subject"].tolist()) for part in (train, held, fold)]
            assert sum(map(len, sides)) == len(set.union(*sides)) == people
    assert (times == 1).all()


@given(subjects, st.randoms())
def test_the_order_of_examples_does_not_matter(subject, random):
    shuffled = list(range(len(subject)))
    random.shuffle(shuffled)
    if len(np.unique(subject)) > 1:
        np.testing.assert_array_equal(folds.subject_folds(subject)[shuffled], folds.subject_folds(subject[shuffled]))


def test_stored_folds_are_taken_as_they_are():
    stored = np.array([4, 0, 1, 2, 3, 4], np.int8)
    made = folds.divide({"fold": stored}, "stored", "x")
    assert made.tolist() == stored.tolist()
    assert made.dtype == np.int32
    _, fifth = take_fold(source(made), 5)
    assert fifth.rows.tolist() == [100, 105]
    assert fifth.split == "fold 5 of 5"


@pytest.mark.parametrize(
    ("text", "arrays", "says"),
    [
        ("subjct:10", {}, "config.data.folds='subjct:10': .*'subject:10'"),
        ("subject", {}, "config.data.folds='subject': .*'subject:10'"),
        ("subject:1", {}, "subject:1.* at least 2"),
        ("stored", {"label": [0]}, "x .* no field 'fold'"),
        ("subject:2", {"label": [0]}, "x .* no field 'subject'"),
        ("subject:4", {"subject": [3, 1, 1, 2]}, "there are 3 subjects, but 4 are needed"),
        ("leave_one_subject_out", {"subject": [3, 3]}, "there are 1 subjects, but 2 are needed"),
        ("stored", {"fold": [1, 2, 3]}, "numbered 1, 2, 3"),
        ("stored", {"fold": [0, -1, 1]}, "numbered -1, 0, 1"),
        ("stored", {"fold": [0, 0]}, "numbered 0"),
    ],
)
def test_what_cannot_be_divided_is_said_in_one_line(text, arrays, says):
    with pytest.raises(UserError, match=says) as caught:
        folds.divide({name: np.array(values) for name, values in arrays.items()}, text, "x")
    assert "\n" not in str(caught.value)


def test_a_fold_that_lost_its_examples_is_refused():
    left = source([0, 1, 2, 2]).select(np.array([0, 2, 3]))  # excluded, or no clear label
    with pytest.raises(UserError, match="x, split all, .* fold 2 of 3: nothing to test"):
        take_fold(left, 2)
    with pytest.raises(UserError, match="config.fold=4.* 1 to 3, or all"):
        take_fold(left, 4)


def test_examples_are_dealt_evenly_class_by_class():
    label = np.random.default_rng(0).choice(4, 203, p=[0.6, 0.2, 0.15, 0.05])
    dealt = folds.divide({"label": label}, "examples:5", "x")
    assert set(dealt.tolist()) == set(range(5))
    for c in range(4):
        counts = np.bincount(dealt[label == c], minlength=5)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(dealt, folds.divide({"label": label}, "examples:5", "x"))
    assert "whoever they show" in folds.parse_division("examples:5").describe()
    with pytest.raises(UserError, match="there are 3 examples"):
        folds.divide({"label": np.zeros(3, int)}, "examples:5", "x")
    with pytest.raises(UserError, match="has votes only"):
        folds.divide({}, "examples:5", "x")
