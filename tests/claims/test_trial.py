"""The frame of the claims on trial: seeds, probes, verdicts, and a trial that was stopped."""

import dataclasses
import importlib
import json
import pathlib
import sys
import types

import numpy as np
import pytest

from experiments import baseline, comparison
from experiments.claims import trial
from experiments.claims.trial import POINTS, Comparison, Trial
from fer_jax.config.fields import assign
from fer_jax.data.sources.source import Source
from fer_jax.errors import Diverged

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    for setting in ("keep_freed_memory", "use_compilation_cache"):  # they would outlast the test
        monkeypatch.setattr(comparison, setting, lambda: None)


KNOWN = Trial(
    name="known",
    claim="Known.",
    arms=dict.fromkeys(("ours", "same", "theirs"), lambda seed: pytest.fail("no config is needed")),
    measure=lambda arm, model, test: {},
    control="theirs",
    comparisons=(
        Comparison("ours is better", "accuracy", "ours", "theirs", **POINTS),
        Comparison("same is better", "accuracy", "same", "theirs", **POINTS),
        Comparison("ours is worse", "accuracy", "ours", "theirs", **POINTS, better="lower"),
    ),
)


CONFIG = {"selection": {"rule": "best_validation"}, "data": {"validation_split": ""}}


def write(out, longer=0.7, seeds=5, commit="abc"):
    """Records of 200 people with 10 faces: 'ours' is right on 4 points more than 'theirs', 'same' on none."""
    rng = np.random.default_rng(0)
    (out / "probes").mkdir(parents=True)
    for arm, more in (("ours", 0.04), ("same", 0.0), ("theirs", 0.0)):
        for rate, accuracy in ((1, 0.6), (0.5, 0.66), (2, 0.5)):
            (out / "probes" / f"{arm}_rate{rate}_steps1.json").write_text(json.dumps({"accuracy": accuracy}))
        for seed in range(seeds):
            right = np.random.default_rng(seed).random((200, 10)) < 0.6
            sums = right.sum(axis=1) + 10 * more + 0.3 * rng.normal(size=200)
            record = {"arm": arm, "seed": seed, "measures": {"accuracy": sums.sum() / 2000}, "minutes": 1.0}
            record |= {"device": "cpu", "versions": {"jax": "0.10.1"}, "git_commit": commit, "config": CONFIG}
            record |= {"examples": " ".join(["10"] * 200), "sums": {"accuracy": " ".join(map(str, sums))}}
            (out / f"{arm}_seed{seed}.json").write_text(json.dumps(record))
    (out / "probes" / "theirs_rate0.5_steps4.json").write_text(json.dumps({"accuracy": longer}))


def verdicts(what, out):
    return [row.verdict for row in trial.rows(what, out)]


def test_verdicts_come_from_the_records(tmp_path):
    assert verdicts(KNOWN, tmp_path) == ["not tested at this size"] * 3
    write(tmp_path)
    first, second, third = trial.rows(KNOWN, tmp_path)
    assert [row.verdict for row in (first, second, third)] == ["supported", "no effect", "opposite"]
    assert first.found is not None
    assert first.found.mean == pytest.approx(0.04, abs=0.002)
    assert first.p == pytest.approx(3 * first.found.p), "Holm: three comparisons"
    text = trial.table(KNOWN, tmp_path)
    assert "| ours is better | ours: 6" in text
    assert " points | 2 points | 0.0" in text
    assert "theirs, 94% of its accuracy after 4 times the steps" in text
    assert "| ours | 5 | x 0.5 | 0.6" in text
    end = "; test examples: 2,000; selection: best_validation on held-out examples."
    assert f"Commit: abc; device: cpu; versions: jax 0.10.1; seeds: 0, 1, 2, 3, 4{end}" in text
    assert trial.main(KNOWN, ["--table", f"--out={tmp_path}"]) == 0
    assert tmp_path.with_suffix(".md").read_text() == text
    assert tmp_path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_an_under_trained_control_and_a_blind_setting_test_nothing(tmp_path):
    write(tmp_path / "short", longer=0.8)
    assert set(verdicts(KNOWN, tmp_path / "short")) == {"not tested: the control is under-trained"}
    write(tmp_path / "long")
    seeing, blind = (
        dataclasses.replace(KNOWN, attainable=Comparison("truth helps", "accuracy", arm, "theirs", **POINTS))
        for arm in ("ours", "same")
    )
    assert verdicts(seeing, tmp_path / "long") == ["supported", "no effect", "opposite", "supported"]
    assert verdicts(blind, tmp_path / "long")[:2] == [
        "supported",
        "not tested: the positive control has no effect either",
    ]


def test_one_seed_is_not_enough(tmp_path):
    write(tmp_path, seeds=1)
    assert set(verdicts(KNOWN, tmp_path)) == {"not tested at this size"}


def test_a_trial_that_was_stopped_goes_on(tmp_path, monkeypatch, capsys):
    """Training is replaced by a score that grows with the learning rate; 'wide' is right on all faces."""
    trained, diverging = [], ["a_wide_one_rate2_steps1", "a_wide_one_seed0"]
    faces = Source(
        "faces", "test", tuple("abc"), {"label": np.arange(6) % 3, "subject": np.arange(6) // 2}, np.arange(6)
    )

    def train(config, folder):
        trained.append((folder.name, config))
        if len(trained) == 2:
            raise KeyboardInterrupt
        if folder.name in diverging:
            raise Diverged("not finite")
        run = {"device": "", "versions": {}, "git_commit": "", "wall_seconds": 60.0}
        return run | {"accuracy": 10 * config.optimizer.learning_rate, "mean_recall": 0.5}

    def load(path):
        width = 3 if "wide" in path else 1
        return types.SimpleNamespace(config=trained[-1][1], logits=lambda test: np.eye(3)[np.arange(6) % width])

    monkeypatch.setattr(trial.loop, "train", train)
    monkeypatch.setattr(trial, "load", load)
    monkeypatch.setattr(trial, "load_split", lambda data, split, training: faces)

    def arm(width):
        def make(seed):
            config = baseline.get_config()
            config.model.width = width
            return config

        return make

    wider = Comparison("it is larger", "accuracy", "a wide one", "narrow", **POINTS)
    small = Trial("small", "Wider.", {"a wide one": arm(12), "narrow": arm(8)}, KNOWN.measure, "narrow", (wider,))
    options = ["--seeds=2", f"--workdir={tmp_path / 'runs'}", f"--out={tmp_path / 'out'}", "--data_dir=there"]
    monkeypatch.setattr(sys, "argv", ["small.py", *options])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", types.SimpleNamespace(name="experiments.claims.small"))
    assert trial.main(small, options) == 130
    assert trial.main(small, options) == 1
    assert "a_wide_one_seed0: not finite" in capsys.readouterr().err
    diverging.remove("a_wide_one_seed0")
    assert trial.main(small, options) == 0
    names = [name for name, _ in trained]
    assert names[:5] == [f"narrow_rate{r}" for r in ("1_steps1", "0.5_steps1", "0.5_steps1", "2_steps1", "2_steps4")]
    assert names[8:] == ["a_wide_one_seed0", "narrow_seed0", "a_wide_one_seed1", "narrow_seed1", "a_wide_one_seed0"]
    configs = dict(trained)
    assert configs["a_wide_one_seed0"].optimizer.learning_rate == configs["narrow_rate1_steps1"].optimizer.learning_rate
    rates = {name: config.optimizer.learning_rate for name, config in trained}
    assert rates["narrow_seed1"] == rates["narrow_rate2_steps4"] == 4 * rates["narrow_rate0.5_steps1"]
    assert configs["narrow_rate2_steps4"].train.epochs == 4 * configs["narrow_seed1"].train.epochs
    seeds = {name: config.data.builder.seed for name, config in trained}
    assert (seeds["narrow_seed0"], seeds["narrow_seed1"], seeds["narrow_rate1_steps1"]) == (1000, 1001, 999)
    record = json.loads((tmp_path / "out" / "narrow_seed1.json").read_text())
    assert (record["examples"], record["sums"]) == ("2 2 2", {"accuracy": "1 1 0"}), "right on faces 0 and 3"
    assert "there" not in json.dumps(record)
    assert record["command"] == "python -m experiments.claims.small --seeds=2"
    assert "| a wide one: 100 | narrow: 33.3 | +66.7 (" in (tmp_path / "out.md").read_text()
    probe = tmp_path / "out" / "probes" / "narrow_rate2_steps4.json"
    probe.write_text(json.dumps(json.loads(probe.read_text()) | {"accuracy": 1.0}))
    assert trial.main(small, [*options, "--seeds=3"]) == 0
    assert "not tested at this size: narrow reaches 2% of its accuracy" in capsys.readouterr().out
    assert len(trained) == len(names), "no seed of an under-trained control"
    config = configs["narrow_seed1"].copy_and_resolve_references()
    config.model.width = 9
    small.arms["narrow"] = lambda seed: config  # pyright: ignore
    assert trial.main(small, options) == 2, "a record of another recipe"


TINY = {"data.image_size": 16, "model.depth": 10, "model.width": 4, "model.hidden": 16, "train.devices": 1}
UNCHANGED = (("acnn", "image_size"), ("psr_sr", "width"))
SOME_ARMS = {
    "acnn": ("gates", "no gates", "told", "VGG"),
    "fan": ("relation", "mean pooling", "score fusion, dropout"),
    "fdrl": ("none", "wide", "FDRL"),
    "psr": ("PSR", "single"),
    "word2vec": ("A0 words", "cross-entropy"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME_ARMS)
def test_each_claim_from_end_to_end_in_a_tiny_form(name, data_dir, tmp_path, monkeypatch):
    """Networks that have learned nothing, on few faces; those that begin with another begin with that of their seed."""
    what, whole = importlib.import_module(f"experiments.claims.{name}").TRIAL, trial.complete
    what = dataclasses.replace(what, arms={arm: what.arms[arm] for arm in SOME_ARMS[name]})

    def complete(*arguments):
        config = whole(*arguments)
        for field, value in TINY.items():
            group, _, leaf = field.rpartition(".")
            if leaf in config[group] and (config.method, leaf) not in UNCHANGED:
                assign(config, field, value)
        return config

    monkeypatch.setattr(trial, "complete", complete)
    monkeypatch.setattr(trial, "_probes", lambda *_: ())  # they are like the other runs
    monkeypatch.setattr(trial, "best_rate", lambda out, arm: 1.0)
    monkeypatch.setattr(trial, "FACES", {"synthetic_faces/basic": (140, 140), "synthetic_faces/clips": (84, 42)})
    options = [f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}", f"--data_dir={data_dir}"]
    assert trial.main(what, ["--seeds=1", "--max_steps=2", *options]) == 0
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert len(records) == len(what.arms)
    measured = {measure for record in records.values() for measure in record["measures"]}
    assert {c.measure for c in (*what.comparisons, *filter(None, [what.attainable]))} <= measured
    assert all(np.isfinite(list(record["measures"].values())).all() for record in records.values())
    assert str(tmp_path) not in json.dumps(records)
    for stem, record in records.items():
        begun = json.loads((tmp_path / stem / "results.json").read_text())["started_from"]
        starts = what.start is not None and record["arm"] in (what.starting or what.arms)
        assert ("start_seed0" in json.dumps(begun)) == starts


@pytest.mark.parametrize("name", ["acnn", "fan", "fdrl", "pdls", "psr", "word2vec"])
def test_committed_tables_are_those_of_the_committed_records(name):
    what, out = importlib.import_module(f"experiments.claims.{name}").TRIAL, ROOT / trial.FOLDER / name
    assert 1 <= len(what.comparisons) <= 4
    assert {c.ours for c in what.comparisons} <= set(what.arms)
    assert {c.theirs for c in what.comparisons if isinstance(c.theirs, str)} <= set(what.arms)
    assert what.control in what.arms
    assert out.with_suffix(".md").read_text() == trial.table(what, out)
    assert out.with_suffix(".png").exists() == any(row.found for row in trial.rows(what, out))


def test_bad_input(tmp_path, capsys):
    assert trial.main(KNOWN, ["--max_steps=3"]) == 2
    assert "give --out=FOLDER" in capsys.readouterr().err
    write(tmp_path)
    (tmp_path / "ours_seed0.json").write_text('{"arm": "ou')
    assert trial.main(KNOWN, ["--table", f"--out={tmp_path}"]) == 2
    assert "ours_seed0.json is damaged" in capsys.readouterr().err
    write(tmp_path / "old")
    other = dataclasses.replace(KNOWN, comparisons=(Comparison("it is new", "new", "ours", "theirs", **POINTS),))
    assert trial.main(other, ["--table", f"--out={tmp_path / 'old'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the record of ours, seed 0, has no 'new': move it away")
