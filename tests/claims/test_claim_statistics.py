"""What two arms differ by: intervals over seeds and people, equivalence, verdicts, against known answers."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.claims.statistics import auc_values, difference, ratio_values, roc_auc, verdict

PEOPLE, FACES = 400, 12
COUNTS = np.full(PEOPLE, float(FACES))
T = stats.t(df=4)


def half(found):
    return (found.interval[1] - found.interval[0]) / 2


def test_the_spread_over_seeds_gives_students_interval_and_both_p():
    by_seed = [0.01, 0.03, 0.02, 0.05, -0.01]
    found = difference([value * COUNTS for value in by_seed], [COUNTS] * 5, margin=0.06, new_faces=True)
    known: Any = stats.ttest_1samp(by_seed, 0.0)
    np.testing.assert_allclose(found.interval, known.confidence_interval(0.95), rtol=1e-9)
    assert found.p == pytest.approx(known.pvalue)
    one_sided = [stats.ttest_1samp(by_seed, m, alternative=a)[1] for m, a in ((-0.06, "greater"), (0.06, "less"))]
    assert found.p_same == pytest.approx(max(one_sided))


def test_seeds_that_agree_by_chance_are_not_surer_than_their_people_allow():
    """Twelve faces of a person are all one way: the people count, not the faces."""
    sums = FACES * np.where(np.arange(PEOPLE) % 2, 1.0, -1.0)
    nested = difference([sums] * 5, [COUNTS] * 5, margin=0.1, new_faces=True)
    assert half(nested) == pytest.approx(T.ppf(0.975) / np.sqrt(5 * PEOPLE), rel=0.06)
    same = difference([sums] * 5, [COUNTS] * 5, margin=0.1, new_faces=False)
    assert half(same) == pytest.approx(T.ppf(0.975) / np.sqrt(PEOPLE), rel=0.06), "five times the same faces"


@pytest.mark.parametrize(
    ("mean", "p", "p_same", "better", "said"),
    [
        (0.03, 0.01, 0.9, "higher", "supported"),
        (0.03, 0.01, 0.9, "lower", "opposite"),
        (-0.03, 0.01, 0.9, "lower", "supported"),
        (0.03, 0.06, 0.9, "higher", "undecided"),
        (0.004, 0.3, 0.01, "higher", "no effect"),
        (0.004, 0.01, 0.01, "higher", "no effect"),
    ],
)
def test_verdicts(mean, p, p_same, better, said):
    assert verdict(mean, p, p_same, better) == said


def person_error(values, people):
    """The standard error of a mean over people."""
    return np.sqrt((np.bincount(people, values - values.mean()) ** 2).sum()) / len(values)


def resampled_error(statistic, people, draws=400):
    """The same by drawing whole people and computing the statistic each time."""
    rng, rows = np.random.default_rng(1), [np.flatnonzero(people == p) for p in range(people.max() + 1)]
    drawn = [np.concatenate([rows[p] for p in rng.integers(len(rows), size=len(rows))]) for _ in range(draws)]
    return np.std([statistic(chosen) for chosen in drawn])


def test_values_of_a_ratio_and_of_an_area_have_its_mean_and_its_spread_over_people():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(100), 6)
    of_person = rng.normal(size=100)[people]
    yes = rng.random(600) < 0.4
    scores = np.round(yes + of_person + rng.normal(size=600), 1)  # with ties
    wins = (scores[yes][:, None] > scores[~yes]) + 0.5 * (scores[yes][:, None] == scores[~yes])
    values = auc_values(yes, scores)
    assert values.mean() == pytest.approx(wins.mean()) == pytest.approx(roc_auc(yes, scores))
    assert person_error(values, people) == pytest.approx(
        resampled_error(lambda rows: roc_auc(yes[rows], scores[rows]), people), rel=0.12
    )
    half_of_them = people % 2 == 0
    part = auc_values(yes, scores, half_of_them)
    assert part.mean() == pytest.approx(roc_auc(yes[half_of_them], scores[half_of_them]))

    whole = (rng.random(600) < 0.5).astype(float)
    hits = whole * (of_person + rng.normal(size=600) > 0)
    ratio = ratio_values(hits, whole)
    assert ratio.mean() == pytest.approx(hits.sum() / whole.sum())
    assert person_error(ratio, people) == pytest.approx(
        resampled_error(lambda rows: hits[rows].sum() / whole[rows].sum(), people), rel=0.12
    )
