"""Networks that know faces: very many classes train and are scored, and methods of expressions start from the trunk."""

import json

import flax.traverse_util
import numpy as np
import pytest
from etils import epath

from fer_jax import load, report
from fer_jax.inference import trained
from fer_jax.runs import results as written
from fer_jax.training import loop
from fer_jax.training.initial import read_initial, with_weights
from fer_jax.training.setup import make_setup

PEOPLE = 120


@pytest.fixture(scope="module")
def finished():
    return {}


@pytest.fixture
def run(tiny, finished, tmp_path_factory, monkeypatch):
    """The work directory of a network that knows 120 synthetic people by their angles, trained once for this file."""
    if not finished:
        monkeypatch.setattr(written, "write_report", report.write_report)
        folder = tmp_path_factory.mktemp("people")
        config = tiny("face_identity", max_steps=2)
        config.data.builder.update(train=2 * PEOPLE, test=PEOPLE, per_subject=2)
        config.objective = "arcface"
        config.strategy.arcface.scale = 16.0
        finished["scores"] = loop.train(config, epath.Path(folder))
        finished["folder"] = folder
    return finished["folder"]


def test_very_many_classes_are_scored_without_a_table_of_them(run, finished):
    scores = json.loads((run / "results.json").read_text())
    assert len(scores["classes"]) == len(scores["recall"]) == scores["num_examples"] == PEOPLE
    assert "confusion" not in scores
    assert scores["mean_recall"] == pytest.approx(scores["accuracy"])  # there is one picture of each
    assert "mean_recall_interval" in scores
    assert len((run / "report" / "index.html").read_text()) < 4e6
    lines = (run / "predictions.csv").read_text().splitlines()
    assert len(lines) == PEOPLE + 1
    assert lines[0].endswith(",status")
    (row,) = load(run).predict(np.zeros((1, 64, 64, 1), np.uint8), cropped=True)
    assert row.expression in scores["classes"]
    assert len(row.probabilities) == PEOPLE


@pytest.mark.parametrize(("method", "objective"), [("baseline", ""), ("baseline", "scn"), ("rul", "")])
def test_expressions_start_from_its_trunk(method, objective, tiny, run):
    config = tiny(method, epochs=20.0)
    config.objective = objective
    config.init_from = str(run)
    setup = make_setup(config)
    fresh, start = setup.init(), read_initial(setup)
    assert start
    state = with_weights(fresh, start, setup.mesh)
    theirs = flat(trained.read(run)[0])
    before, after = flat(fresh.variables()), flat(state.variables())
    assert before["params/trunk/conv1/kernel"].shape == theirs["params/trunk/conv1/kernel"].shape
    for path in after:
        np.testing.assert_array_equal(after[path], (theirs if "/trunk/" in path else before)[path], err_msg=path)


def flat(variables):
    return {path: np.asarray(v) for path, v in flax.traverse_util.flatten_dict(variables, sep="/").items()}
