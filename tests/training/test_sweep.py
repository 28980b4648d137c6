"""Every fold in turn: what is trained, how a killed run goes on, and the scores over all folds."""

import json
import signal

import numpy as np
import pytest
from etils import epath

from fer_jax.data.sources.source import load
from fer_jax.errors import UserError
from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.inference.evaluate import evaluate
from fer_jax.runs.results import FOLD
from fer_jax.runs.workdir import check_owner
from fer_jax.sweeps import folds, sweep
from fer_jax.training import loop

ONE_DEVICE = {"train.devices": 1}


@pytest.fixture
def folds_of(tiny):
    """A function that makes a config small enough to train every fold of it: three folds, two steps."""

    def make(fold="all", **train):
        config = tiny("baseline", max_steps=2, **train)
        config.fold, config.data.folds = fold, "subject:3"
        config.data.path = "stream"  # then folds of different sizes share what is compiled
        config.evaluation.batch_size = 32
        config.evaluation.bootstrap = 20
        return config

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("sweep") / "run")


def predictions(folder):
    with np.load(folder / FOLD) as stored:
        return dict(stored)


def test_a_killed_run_of_every_fold_goes_on_and_pools_the_folds(folds_of, finished, monkeypatch, capsys):
    original, trained = loop.train, []

    def killed_before_the_third(config, workdir):
        if config.fold == "3":
            raise loop.Interrupted(signal.SIGTERM, 0)
        trained.append(config.fold)
        return original(config, workdir)

    monkeypatch.setattr(loop, "train", killed_before_the_third)
    with pytest.raises(loop.Interrupted):
        sweep.train(folds_of(), finished)
    assert trained == ["1", "2"]
    assert not (finished / "results.json").exists()
    before = {n: (finished / f"fold0{n}" / "results.json").read_bytes() for n in (1, 2)}
    with pytest.raises(UserError, match="fold 3 of 3 in .*fold03 is not finished: start the command"):
        sweep.evaluate(finished, changes=ONE_DEVICE)

    monkeypatch.undo()
    monkeypatch.setattr("fer_jax.runs.results.write_report", lambda *_, **__: None)
    capsys.readouterr()
    results = sweep.train(folds_of(), finished)
    said = capsys.readouterr().out
    assert said.count("is finished") == 2
    assert "Fold 3 of 3 (whole subjects, by their rank modulo 3) is tested" in said
    assert {n: (finished / f"fold0{n}" / "results.json").read_bytes() for n in (1, 2)} == before

    singles = [json.loads((finished / f"fold0{n}" / "results.json").read_text()) for n in (1, 2, 3)]
    parts = [predictions(finished / f"fold0{n}") for n in (1, 2, 3)]
    logits, labels = (np.concatenate([part[name] for part in parts]) for name in ("logits", "label"))
    whole = classification_metrics(logits, labels, results["classes"], bootstrap=0)
    assert results["num_examples"] == len(labels) == sum(s["num_examples"] for s in singles) == 280
    assert sorted(np.concatenate([part["row"] for part in parts]).tolist()) == list(range(280))
    assert np.sum([s["confusion"] for s in singles], axis=0).tolist() == results["confusion"] == whole["confusion"]
    for name in ("accuracy", "mean_recall", "macro_f1", "nll", "ece"):
        each = [s[name] for s in singles]
        assert results[name] == results["pooled"][name] == whole[name]
        assert results["mean"][name] == pytest.approx(np.mean(each))
        assert results["std"][name] == pytest.approx(np.std(each, ddof=1))
        assert [fold[name] for fold in results["folds"]] == each
    assert results["pooled"]["correct"] == np.trace(whole["confusion"])
    assert results["split"] == "3 folds of train"
    assert results["fold"] == {"number": "all", "of": 3, "by": "subject:3"}
    assert [s["fold"]["number"] for s in singles] == [1, 2, 3]
    assert results["protocol"].startswith("Each of 3 folds")
    assert singles[1]["protocol"].startswith("Fold 2 of 3")
    assert json.loads((finished / "results.json").read_text()) == results
    assert f"mean over the folds: accuracy {results['mean']['accuracy']:.4f} ± " in said


def test_it_says_that_it_is_finished_and_whose_folder_it_is(folds_of, finished, capsys):
    sweep.train(folds_of(), finished)
    assert f"{finished} is finished: synthetic_faces/basic 3 folds of train, 280 images" in capsys.readouterr().out
    other = folds_of()
    other.seed = 1
    with pytest.raises(UserError, match="belongs to another config .*seed: 0 -> 1"):
        sweep.train(other, finished)
    check_owner(finished / "fold02", folds_of("2"))  # the run of a single fold is the same run


def test_every_fold_is_scored_again(folds_of, finished):
    stored = json.loads((finished / "results.json").read_text())
    results = sweep.evaluate(finished, changes=ONE_DEVICE)
    for name in ("accuracy", "nll", "confusion", "mean", "std", "pooled", "protocol"):
        assert results[name] == stored[name]
    assert results["folds"][0]["folder"] == "../fold01/evaluation-fold_1_of_3"
    assert json.loads((finished / "evaluation" / "results.json").read_text()) == results
    assert json.loads((finished / "results.json").read_text()) == stored
    with pytest.raises(UserError, match="test.*: score one of them.*fold01"):
        sweep.evaluate(finished, split="test")
    with pytest.raises(UserError, match="--config.model.width: a trained model is scored with the config"):
        sweep.evaluate(finished, changes={"model.width": 16})
    with pytest.raises(UserError, match="give the folder of one run, of one seed or fold"):
        evaluate(finished)
    start = folds_of("1")
    start.init_from = str(finished)
    with pytest.raises(UserError, match="give the folder of one run"):
        loop.train(start, finished.parent / "other")
    assert not (finished.parent / "other").exists()


def test_a_fold_is_evaluated_by_itself(folds_of, finished):
    stored = json.loads((finished / "fold02" / "results.json").read_text())
    again = evaluate(finished / "fold02", changes=ONE_DEVICE)
    assert {k: again[k] for k in ("split", "confusion", "fold", "protocol")} == {
        k: stored[k] for k in ("split", "confusion", "fold", "protocol")
    }
    others = evaluate(finished / "fold02", split="train", changes=ONE_DEVICE)
    assert others["split"] == "train without fold 2"
    assert others["num_examples"] == 280 - stored["num_examples"]
    assert "protocol" not in others
    held = evaluate(finished / "fold02", split="test", changes=ONE_DEVICE)
    assert held["num_examples"] == 70
    assert "protocol" not in held  # whatever this split is, it is not the fold


def test_predictions_that_do_not_belong_here(folds_of, finished):
    (finished / "results.json").rename(finished / "kept.json")
    path = finished / "fold02" / FOLD
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(UserError, match="predictions.npz is not an .npz file .* delete .*fold02 and start the same"):
        sweep.train(folds_of(), finished)
    path.write_bytes((finished / "fold01" / FOLD).read_bytes())
    with pytest.raises(UserError, match="other examples than synthetic_faces/basic now has in fold 2"):
        sweep.train(folds_of(), finished)
    path.write_bytes(whole)
    assert sweep.train(folds_of(), finished)["num_examples"] == 280


def test_nothing_is_written_before_everything_fits(folds_of, tmp_path):
    for path, value, says in (
        ("data.folds", "subject:25", "there are 24 subjects"),
        ("data.holdout_fraction", 0.0, "leaves nothing to validate"),
        ("data.folds", "", "config.fold=all needs config.data.folds"),
    ):
        config = folds_of()
        config.data[path.split(".")[1]] = value
        with pytest.raises(UserError, match=says):
            sweep.train(config, epath.Path(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_all_examples_fold_after_fold(folds_of):
    config = folds_of("1")
    whole = load(config.data, "train", training=False)
    ordered = folds.by_fold(whole, 3)
    assert (np.diff(ordered.arrays["fold"]) >= 0).all()
    np.testing.assert_array_equal(ordered.arrays["image"], whole.arrays["image"][ordered.rows])
