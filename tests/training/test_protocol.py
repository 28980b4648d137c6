"""What is tested, and what must be said of it."""

import json
import shutil

import numpy as np
import pytest
from etils import epath

from fer_jax.config.check import check_config
from fer_jax.config.protocol import fold_facts, part_to_score, part_to_test, protocol, split_to_test
from fer_jax.data.sources.source import load
from fer_jax.errors import UserError
from fer_jax.inference.evaluate import evaluate
from fer_jax.parsing import read_lines
from fer_jax.runs.workdir import default_workdir
from fer_jax.training import loop
from fer_jax.training.setup import make_setup


def folded(tiny, fold, folds="subject:3", **data):
    config = tiny("baseline", max_steps=2)
    config.fold, config.data.folds = fold, folds
    config.data.update(data)
    return config


@pytest.mark.parametrize(
    ("fold", "folds", "data", "says"),
    [
        ("3", "", {}, "config.fold=3 .*config.data.folds.*'subject:10'"),
        ("all", "", {}, "config.fold=all .*config.data.folds"),
        ("", "subject:10", {}, "config.data.folds='subject:10' .*config.fold=1"),
        ("11", "subject:10", {}, "config.fold=11: there are 10 folds"),
        ("0", "subject:10", {}, "config.fold='0': give the number of a fold, from 1, or all"),
        ("al", "subject:10", {}, "config.fold='al': give the number of a fold, from 1, or all"),
        ("1", "subject:ten", {}, "config.data.folds='subject:ten': did you mean 'subject:10'"),
        ("1", "subject:3", {"validation_split": "test"}, "validation_split='test': .*leave it empty"),
        ("1", "subject:3", {"test_split": "validation"}, "test_split='validation': .*leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_without_data(fold, folds, data, says, tiny):
    with pytest.raises(UserError, match=says) as caught:
        check_config(folded(tiny, fold, folds, **data))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fold", "folds", "says"),
    [
        ("25", "leave_one_subject_out", "config.fold=25: there are 24 folds"),
        ("1", "subject:25", "there are 24 subjects"),
        ("1", "stored", "synthetic_faces/basic has no folds of its own"),
        ("all", "subject:3", "config.fold=all .*config.fold=1"),
    ],
)
def test_what_only_the_data_can_tell_is_refused_too(fold, folds, says, tiny):
    with pytest.raises(UserError, match=says):
        make_setup(folded(tiny, fold, folds))


@pytest.mark.parametrize("target", ["label", "probability"])
def test_nobody_who_is_tested_trains_or_selects(target, tiny):
    config = folded(tiny, "2", target=target, exclude=())
    setup = make_setup(config)
    whole = load(config.data, split_to_test(config), training=False)
    fold = part_to_test(config, whole)
    people = [set(part.arrays["subject"].tolist()) for part in (setup.train, setup.validation, fold)]
    assert [len(them) for them in people] == [13, 3, 8]
    assert len(set.union(*people)) == 24
    assert people[2] == set(sorted(set(whole.arrays["subject"].tolist()))[1::3])
    assert set(part_to_score(config, whole).arrays["subject"].tolist()) == people[0] | people[1]


def test_selection_on_the_fold_is_what_best_on_test_means(tiny):
    config = folded(tiny, "1")
    config.selection.rule = "best_on_test"
    setup = make_setup(config)
    fold = part_to_test(config, load(config.data, split_to_test(config), training=False))
    assert setup.validation.rows.tolist() == fold.rows.tolist()
    assert "the model is selected on the tested examples themselves" in protocol(config, 3)


def test_what_is_said(tiny):
    config = tiny("baseline")
    assert protocol(config) == ""
    assert fold_facts(config, 0) == {}
    config.data.test_split = "validation"
    config.data.holdout_fraction = 0.1
    assert protocol(config) == ""  # a split of that name proves nothing
    config.data.dataset = "affectnet/classes7"
    assert protocol(config) == (
        "The published validation split serves as the test split; the model is selected on 10% of train, held out."
    )
    config.data.dataset = "affwild2"
    assert protocol(config).startswith("The published validation split serves as the test split;")
    config.selection.rule = "last"
    assert protocol(config).endswith("; the model is that of the last step.")
    config = folded(tiny, "3", "subject:10", holdout_fraction=0.1)
    assert protocol(config, 10) == (
        "Fold 3 of 10 (whole subjects, by their rank modulo 10) is tested, the other folds train; the "
        "model is selected on 10% of the other folds, held out."
    )
    assert fold_facts(config, 10) == {"fold": {"number": 3, "of": 10, "by": "subject:10"}}
    config = folded(tiny, "all", "stored")
    assert protocol(config, 5).startswith("Each of 5 folds (the data set's own folds) is tested once, while the others")


def test_where_a_fold_lives(tiny):
    assert (
        default_workdir(folded(tiny, "")) == default_workdir(folded(tiny, "all")) == epath.Path("runs/baseline/smoke")
    )
    assert default_workdir(folded(tiny, "3")) == epath.Path("runs/baseline/smoke/fold03")
    assert default_workdir(folded(tiny, "17")) == epath.Path("runs/baseline/smoke/fold17")


def test_fewer_examples_are_as_many_as_wanted_of_every_class(tiny):
    config = tiny()
    config.selection.rule, config.data.holdout_fraction, config.data.examples = "last", 0.0, 101
    train, share = make_setup(config).train, 101 / 280
    assert len(train) == 101
    assert "subject" in train.arrays
    everything = load(config.data, config.data.train_split, training=True)
    np.testing.assert_allclose(train.class_counts(), share * np.array(everything.class_counts()), atol=0.999)
    config.data.examples_seed = 1
    assert set(make_setup(config).train.rows) != set(train.rows)


def test_everything_trains_where_the_last_step_is_taken(tiny, tmp_path):
    config = tiny(max_steps=4)
    config.selection.rule, config.data.holdout_fraction = "last", 0.0
    workdir = epath.Path(tmp_path / "run")
    results = loop.train(config, workdir)
    assert (results["training_examples"], results["validation_examples"]) == (280, 0)
    assert results["selection"]["best_step"] == results["selection"]["last"]["step"] == 4
    assert {line["kind"] for line in read_lines(workdir / "metrics.jsonl")} == {"train"}
    config.train.phase_restores_best = True
    with pytest.raises(UserError, match=r"config.data.holdout_fraction=0\.1"):
        check_config(config)


def test_a_model_is_evaluated_where_only_the_test_split_lies(tiny, tmp_path):
    config, workdir = tiny(max_steps=2), epath.Path(tmp_path / "run")
    expected = loop.train(config, workdir)
    shutil.copytree(config.data.data_dir, tmp_path / "data")
    for path in (tmp_path / "data").rglob("*-train.array_record*"):
        path.unlink()
    for path in (tmp_path / "data").rglob("dataset_info.json"):
        facts = json.loads(path.read_text())
        facts["splits"] = [split for split in facts["splits"] if split["name"] == "test"]
        path.write_text(json.dumps(facts))
    results = evaluate(workdir, changes={"data.data_dir": str(tmp_path / "data"), "train.devices": 1})
    assert results["accuracy"] == expected["accuracy"]
