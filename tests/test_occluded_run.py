"""ACNN through the whole harness: doubled training set, scores behind objects, gates in the report, resume."""

import json

import numpy as np
import pytest
from etils import epath

from fer_jax.data.sources.source import load
from fer_jax.inference import trained
from fer_jax.inference.evaluate import evaluate
from fer_jax.report.method_sections import method_sections
from fer_jax.runs import results as writing
from fer_jax.training import loop, runner


def small(tiny):
    config = tiny("acnn", max_steps=6)
    config.model.width = 4
    return config


@pytest.mark.slow
def test_a_run_is_scored_clean_and_covered_shows_its_gates_and_resumes(tiny, tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(writing, "write_report", lambda *_, **given: pages.append(given))
    workdir = epath.Path(tmp_path / "whole")
    results = loop.train(small(tiny), workdir)

    occluded = results["occluded"]
    assert occluded["accuracy"] == pytest.approx(results["accuracy"] - occluded["accuracy_lost"])
    assert np.sum(occluded["confusion"]) == results["num_examples"] == 70
    assert occluded["nll"] != results["nll"]
    assert results["training_examples"] == 2 * (280 - results["validation_examples"])
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert 0.3 < lines[0]["monitor/alpha_mean"] < 0.7
    assert lines[0]["monitor/alpha_spread"] > 0.02

    shown = pages[0]["inspection"]
    assert shown.values["alpha"].shape == shown.occluded.values["alpha"].shape == (14, 25)
    assert not np.allclose(shown.values["alpha"], shown.occluded.values["alpha"])
    np.testing.assert_array_equal(shown.values["points"], shown.occluded.values["points"])
    text = method_sections(shown)
    assert "behind an object" in text
    assert text.count("<circle") == 2 * 14 * 24

    test = load(small(tiny).data, "test", training=False)
    outputs = trained.load(str(workdir)).outputs(test, ["alpha", "psi"])
    assert outputs["alpha"].shape == (70, 25)
    assert outputs["psi"].shape == (70, 24, 16)
    evaluated = evaluate(workdir, changes={"train.devices": 1})
    assert evaluated["occluded"] == occluded
    without = evaluate(workdir, changes={"train.devices": 1, "evaluation.occluded": False})
    assert "occluded" not in without

    original = runner.StepRunner.run
    made = []

    def dies_at_five(self, state, most):
        made.append(1)
        if len(made) == 5:
            raise KeyboardInterrupt
        return original(self, state, most)

    monkeypatch.setattr(runner.StepRunner, "run", dies_at_five)
    killed = epath.Path(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        loop.train(small(tiny), killed)
    monkeypatch.setattr(runner.StepRunner, "run", original)
    again = loop.train(small(tiny), killed)
    assert again["params_sha256"] == results["params_sha256"]
    assert again["occluded"] == occluded
    assert (killed / "metrics.jsonl").read_text() == (workdir / "metrics.jsonl").read_text()
