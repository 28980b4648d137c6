"""The benchmark of noisy labels: valid configs, paired differences, corrected p-values."""

import json
import re

import numpy as np
import pytest

from experiments import noise_labels
from experiments.comparison import check_recipe, facts, holm, paired
from experiments.noise import ABLATIONS, COLUMNS, METHODS, PROBES, config_of, main, probe_config
from experiments.noise_knowledge import claims_table, coverage, cured
from fer_jax.config.check import check_config
from fer_jax.data.sources.source import Source
from fer_jax.errors import UserError


@pytest.mark.parametrize("method", METHODS)
def test_every_config_is_valid(method):
    for column in COLUMNS:
        check_config(config_of(column, method, seed=1))
    check_config(config_of("real", method, seed=1, full=True))
    for value in PROBES[method][1] if method in PROBES else ():
        config = probe_config(method, value)
        check_config(config)
        assert (config.data.validation_split, config.data.test_split) == ("", "public_test")


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_differs_from_what_it_is_compared_with(ablation):
    config, whole = config_of("synthetic30", ablation, 0), config_of("synthetic30", ABLATIONS[ablation][0], 0)
    check_config(config)
    assert config.to_json() != whole.to_json()
    assert (config.data, config.train) == (whole.data, whole.train)


def test_what_papers_say_is_judged_by_the_means_of_the_seeds():
    def runs(memorized, recovered):
        return [{"model": {"memorized": m, "recovered": r}} for m, r in zip(memorized, recovered, strict=True)]

    control = runs([0.6, 0.8], [0.2, 0.4])
    lines = claims_table(
        {"real": {"cross-entropy": control, "eac": runs([0.4, 0.4], [0.3, 0.1])}, "clean": {"x": [{}]}}
    )
    found = {line.split("|")[1].strip()[:14]: line.split("|")[3:-1] for line in lines if "EAC" in line}
    assert found == {"EAC: fewer wro": [" 30.00 yes "], "EAC: more true": [" -10.00 no "]}


def test_the_difference_is_paired_by_example():
    """12 of 400 examples more: less than what two samples of 400 differ by, but nothing is lost anywhere."""
    first = (np.random.default_rng(1).random((1, 400)) < 0.5).astype(float)
    better = first.copy()
    better[0, np.flatnonzero(first[0] == 0)[:12]] = 1
    difference, low, high, p = paired(first, better)
    assert difference == pytest.approx(0.03)
    assert 0.01 < low < high < 0.05
    assert p < 0.01
    assert paired(first, first)[3] == 1


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "c": 0.06, "b": 0.06}


def test_relabeling_and_dropping_by_hand():
    """Of 100 labels 30 are wrong: 20 are relabeled, 12 of them rightly; 40 are dropped, 24 of them wrong."""
    log = {"monitor/relabeled": 0.2, "monitor/relabeled_rightly": 0.12, "selected": 0.6, "selected_wrong": 0.2}
    found = cured(log, 0.3)
    assert found["relabeling"] == pytest.approx({"precision": 0.6, "recall": 0.4})
    assert found["dropping"] == pytest.approx({"precision": 0.6, "recall": 0.8})
    assert cured(dict.fromkeys(log, 0.0), 0.3)["relabeling"] == {"precision": None, "recall": 0}


def test_accuracy_of_the_most_certain():
    right = np.array([True, False] * 5)
    assert coverage(right, np.where(right, 1.0, 0.0)) == pytest.approx([0.5, 5 / 9, 5 / 8, 5 / 7, 5 / 6, 1])


def test_the_most_doubted_labels_by_hand(monkeypatch):
    """Rows 30 and 10 are doubted most; FER+'s majority is another for row 30, for whose label nobody voted."""
    monkeypatch.setattr(noise_labels, "COUNT", 2)
    shares = np.array([[0.8, 0.2], [0.6, 0.4], [0.0, 1.0], [0.3, 0.7]], np.float32)
    votes = np.arange(40).reshape(4, 10)
    arrays = {"label": np.array([0, 0, 1, 1]), "vote_target": shares, "votes_label": votes}
    source = Source("ferplus", "train", ("neutral", "anger"), arrays, rows=np.array([10, 20, 30, 40]))
    labels, doubt = np.array([0, 0, 0, 0]), np.array([1.0, 0.5, 3.456, 0.25])
    assert noise_labels.most_doubted(doubt).tolist() == [2, 0]
    assert noise_labels.as_csv(source, labels, doubt).splitlines() == [
        "row,fer2013,ferplus,doubt,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF",
        "30,neutral,anger,3.46,20,21,22,23,24,25,26,27,28,29",
        "10,neutral,neutral,1.00,0,1,2,3,4,5,6,7,8,9",
    ]
    assert [int(number) for number in re.findall(r"\d+", noise_labels.in_words(source, labels, doubt))] == [
        *(1, 2, 50, 4),  # of the doubted ones, of all in percent
        *(1, 25),  # without a vote
    ]


def test_a_record_of_another_recipe_is_refused(tmp_path):
    config, record = config_of("clean", "cross-entropy", 0), tmp_path / "record.json"
    config.data.data_dir = "elsewhere"
    results = {"device": "", "versions": {}, "git_commit": "", "wall_seconds": 60}
    record.write_text(json.dumps(facts(config, results)))
    assert "elsewhere" not in record.read_text()
    check_recipe(record, config_of("clean", "cross-entropy", 0))
    config.train.epochs = 3.0
    with pytest.raises(UserError, match=r"another config\.train\.epochs"):
        check_recipe(record, config)


def test_a_damaged_record_is_one_line(tmp_path, capsys):
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "cross-entropy_seed0.json").write_text('{"method": "cross-en')
    assert main([f"--out={tmp_path}", "--columns=clean", "--seeds=1"]) == 2
    assert "cross-entropy_seed0.json is damaged" in capsys.readouterr().err
    assert main([f"--out={tmp_path}", "--columns="]) == 2
    assert "empty list" in capsys.readouterr().err
