"""Compound expressions from the probabilities of basic ones."""

import types

import numpy as np
import pytest

from fer_jax.data.sources.source import Source
from fer_jax.evaluation.results import score_model
from fer_jax.inference import pairs
from fer_jax.labels import COMPOUND_EMOTIONS, EMOTIONS, parts_of
from fer_jax.report import Predictions, write_report

BASIC = EMOTIONS[:7]
PARTS, WANTED = pairs._parts(BASIC), pairs._parts(COMPOUND_EMOTIONS)


def posteriors(**p):
    """Logits of a distribution over the basic classes; what is not named shares a thousandth."""
    return np.log([[p.get(name, 1e-3 / 7) for name in BASIC]])


def read(logits, threshold=-1.8, wanted=WANTED):
    return pairs.compound_logits(logits, PARTS, wanted, threshold)[0]


@pytest.mark.parametrize(("a", "b"), sorted({tuple(sorted(parts)) for parts in WANTED if len(parts) == 2}))
def test_two_peaks_are_their_pair(a, b):
    for logits in (posteriors(**{a: 0.5, b: 0.5}), posteriors(**{a: 0.4, b: 0.3, "neutral": 0.3})):
        answer = COMPOUND_EMOTIONS[int(read(logits).argmax())]
        assert set(parts_of(answer) or ()) == {a, b}
        only_pairs = [parts for parts in WANTED if len(parts) == 2]
        assert set(only_pairs[int(read(logits, None, only_pairs).argmax())]) == {a, b}


def test_the_score_is_that_of_the_equation_and_symmetric():
    p = posteriors(neutral=0.4, sadness=0.35, fear=0.25)
    log_p = pairs.log_softmax(p)
    both = pairs.pair_scores(log_p, PARTS, [("sadness", "fear"), ("fear", "sadness")])[0]
    assert both == pytest.approx([np.log(0.35 * 0.25 / 0.6)] * 2, rel=1e-2)


def test_a_sure_basic_class_wins_and_neutral_joins_no_pair():
    answer = lambda logits, threshold=-9.0: COMPOUND_EMOTIONS[int(read(logits, threshold).argmax())]  # noqa: E731
    assert answer(posteriors(happiness=0.72, surprise=0.28)) == "happy"
    assert answer(posteriors(happiness=0.68, surprise=0.32)) == "happily surprised"
    assert answer(posteriors(neutral=0.5, happiness=0.5), -2.0) in ("neutral", "happy")
    assert answer(posteriors(neutral=1.0)) == "neutral"
    assert answer(posteriors(sadness=0.6, fear=0.4), np.log(0.24) + 0.05) == "sad"  # no pair reaches the threshold


def test_the_threshold_is_that_of_the_largest_mean_recall():
    rng = np.random.default_rng(0)
    share = np.concatenate([rng.uniform(0.02, 0.1, 50), rng.uniform(0.3, 0.5, 50)])  # of surprise, beside happiness
    logits = np.concatenate([posteriors(happiness=0.65 - s, surprise=s, neutral=0.35) for s in share])
    names = ("happy", "happily surprised")
    wanted = pairs._parts(names)
    labels = np.repeat([0, 1], 50)
    threshold = pairs.best_threshold(logits, labels, PARTS, wanted)
    np.testing.assert_array_equal(pairs.compound_logits(logits, PARTS, wanted, threshold).argmax(1), labels)


def test_answers_without_probabilities_have_no_score_of_probabilities(tmp_path):
    classes = ("happy", "happily surprised")
    source = Source("known", "test", classes, {"label": np.array([0, 1], np.int32)}, np.arange(2))
    logits = np.concatenate([posteriors(happiness=0.9, surprise=0.1), posteriors(happiness=0.5, surprise=0.5)])
    model = types.SimpleNamespace(classes=BASIC, outputs=lambda _: {"logits": logits})
    config = types.SimpleNamespace(evaluation=types.SimpleNamespace(bootstrap=0, occluded=False, degraded=()))
    match = pairs.match_pairs(source, model, source)
    scored = score_model(lambda *_: {"logits": logits}, {}, match, config)  # pyright: ignore[reportArgumentType]
    assert scored.scores["accuracy"] == 1
    assert not {"nll", "ece", "reliability"} & set(scored.scores)
    predictions = Predictions(scored.outputs["logits"], source.arrays["label"])
    page = write_report(tmp_path, results=scored.scores, history=[], predictions=predictions).read_text()
    assert "Calibration error" not in page


@pytest.mark.parametrize(
    ("source", "model", "reads"),
    [
        (COMPOUND_EMOTIONS, EMOTIONS, True),  # contempt joins no pair and stands in no way
        (COMPOUND_EMOTIONS, EMOTIONS[1:7], False),  # nobody says what is neutral
        (COMPOUND_EMOTIONS[7:18], EMOTIONS[1:7], True),
        (COMPOUND_EMOTIONS, COMPOUND_EMOTIONS, False),
        (BASIC, BASIC, False),
    ],
)
def test_which_models_read_pairs(source, model, reads):
    assert pairs.reads_pairs(source, model) == reads
