"""What is learned from wrong labels and from votes on synthetic faces: checks that need training.

A network that knows its classes well, as relabeling and RUL's sigma need, takes longer: `python -m experiments.noise`.
"""

import json

import numpy as np
import pytest
from etils import epath

from fer_jax.training import loop

START = 12.0


@pytest.fixture
def trained(tiny, tmp_path):
    """A function that trains an experiment on two thousand faces and returns what it logged."""

    def train(experiment, **fields):
        config = tiny(experiment, "synthetic", max_steps=0, epochs=24.0, batch_size=64, log_every_steps=40)
        config.data.builder.train, config.data.builder.test = 2800, 70
        config.data.image_size, config.model.depth, config.model.width = 32, 18, 16
        config.train.eval_every_epochs = 24.0
        config.data.label_noise, config.data.label_noise_rate = "symmetric", 0.3
        config.update_from_flattened_dict(fields)
        loop.train(config, epath.Path(tmp_path / experiment))
        lines = [json.loads(line) for line in (tmp_path / experiment / "metrics.jsonl").read_text().splitlines()]
        logged = [line for line in lines if line["kind"] == "train"]
        return {name: np.array([line[name] for line in logged]) for name in logged[0] if name != "kind"}

    return train


@pytest.mark.slow
def test_scn_trusts_wrong_labels_less_and_relabels_nothing_too_early(trained):
    logged = trained("scn", **{"strategy.scn.start": START})
    early = logged["step"] <= START * logged["step"][-1] / 24
    assert not logged["monitor/relabeled"][early].any()
    assert logged["monitor/importance_wrong"][-1] < logged["monitor/importance_right"][-1]
    assert logged["monitor/relabeled"][-1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["trim", "aum"])
def test_dropping_by_a_rule_finds_more_wrong_labels_than_at_random(rule, trained):
    fields = {"strategy.dropping.start": START, "strategy.dropping.share": 0.2}
    found = trained("dropping", **fields, **{"strategy.dropping.rule": rule})["monitor/dropped_precision"][-1]
    assert found > 0.45  # at random 0.3


@pytest.mark.slow
def test_distributions_as_targets_come_nearer_to_the_votes_than_their_majority(tiny, tmp_path):
    found = {}
    for target in ("cross_entropy", "majority"):
        config = tiny("baseline", "synthetic", max_steps=0, epochs=16.0, batch_size=64, eval_every_epochs=16.0)
        config.data.builder.train, config.data.builder.test = 2800, 280
        config.data.image_size, config.model.depth, config.model.width = 32, 18, 16
        config.data.target = target
        found[target] = loop.train(config, epath.Path(tmp_path / target))["kl_to_votes"]
    assert found["cross_entropy"] < found["majority"]
