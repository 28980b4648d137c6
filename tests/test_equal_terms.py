"""Every method on equal terms: valid configs, budgets, order, tables of right numbers, and one whole small run."""

import argparse
import json

import numpy as np
import pytest
from etils import epath

from experiments import ablation, comparison, equal_budget, equal_terms
from experiments.comparison import packed
from experiments.equal_budget import core_seconds, epochs_for
from experiments.equal_tables import best_rate, table
from experiments.equal_terms import DATA, METHODS, config_of, pretraining_config, probe_config, rates
from fer_jax.config.check import check_config
from fer_jax.config.fields import leaves
from fer_jax.errors import Diverged, UserError


@pytest.mark.parametrize("data", DATA)
def test_every_config_is_valid_and_no_probe_reads_private_test(data):
    check_config(pretraining_config(data, 3.0))
    widths = set()
    for method in METHODS:
        tried = rates(data, method)
        assert len(tried) == 3
        for rate in tried.values():
            config, probe = config_of(data, method, 24.0, rate, seed=1), probe_config(data, method, 24.0, rate)
            check_config(config)
            check_config(probe)
            assert (config.selection.rule, probe.selection.rule) == ("last", "last")
            assert (config.data.validation_split, config.data.test_split) == ("public_test", "private_test")
            assert (probe.data.validation_split, probe.data.test_split) == ("", "public_test")
            assert probe.data.holdout_fraction == 0
            assert (config.train.epochs, probe.train.epochs) == (24.0, 6.0)
            assert config.augmentation.train == ("shift:2", "flip", "erase:0.5")
            if "depth" in config.model:
                widths.add((config.model.depth, config.model.width, config.model.stem))
    assert len(widths) == 1


def test_fdrl_is_tried_with_its_papers_optimizer():
    rate = rates("fer2013", "fdrl")["adam 0.0001"]
    config = config_of("fer2013", "fdrl", 20.0, rate, seed=0)
    assert (config.optimizer.name, config.optimizer.learning_rate, config.optimizer.b1) == ("adam", 1e-4, 0.5)
    assert config.schedule.boundaries_epochs == (5.0, 9.0, 12.5, 16.0)  # 10, 18, 25, 32 of the paper's 40


def test_a_budget_in_epochs_by_hand():
    """2,400 core-seconds for epochs of 400 steps of 0.2 and an evaluation of 10: 26.67 of them."""
    assert epochs_for(40, 400, 0.2, 10) == 26.6
    assert epochs_for(1e-3, 400, 0.2, 10) == 0.1


def test_core_seconds_go_on_where_the_run_was_stopped(tmp_path):
    (tmp_path / "run.core_seconds").write_text("100.5")
    with core_seconds(epath.Path(tmp_path / "run")) as spent:
        assert 100.5 <= spent() < 105
    assert 100.5 <= float((tmp_path / "run.core_seconds").read_text()) < 105


def record(method, seed, right, **more):
    return {
        "method": method,
        "seed": seed,
        "learning_rate": "sgd 0.1",
        "accuracy": float(right.mean()),
        "mean_recall": 0.5,
        "recall": {"anger": 0.8, "disgust": 0.25},
        "behind_objects": 0.4,
        "right": packed(right),
        "examples": len(right),
        "curve": [0.5, 0.62, 0.6],
        "epochs": 24.0,
        "core_minutes": 41.0,
        "parameters": 2800679,
    } | more


def test_the_table_has_the_right_numbers(tmp_path):
    """EAC is right about 20 of 200 pictures more; FDRL never sees disgust; word2vec_a0 has one seed; PSR is weak."""
    right = 2 * [np.random.default_rng(0).permutation(200) < 120]
    better = [r | np.isin(np.arange(200), np.flatnonzero(~r)[:20]) for r in right]
    records = [record("baseline", seed, right[seed]) for seed in range(2)]
    records += [record("eac", seed, better[seed], curve=[0.7]) for seed in range(2)]
    records += [record("fdrl", 1, right[1], recall={"anger": 0.8, "disgust": 0})]
    records += [record("word2vec_a0", 0, right[0]), record("psr", 0, np.arange(200) < 60)]
    probes = [record("eac", 0, right[0], learning_rate=f"sgd {rate}") for rate in (0.033, 0.1)]
    for folder, some in (("runs", records), ("probes", probes)):
        (tmp_path / folder).mkdir()
        for number, each in enumerate(some):
            (tmp_path / folder / f"{number}.json").write_text(json.dumps(each))
    lines = [line.split(" | ") for line in table(METHODS, tmp_path).splitlines() if line.startswith("| ")]
    head, *rows = lines
    runs = {row[0].removeprefix("| "): dict(zip(head, row, strict=True)) for row in rows[:4]}
    assert list(runs) == ["baseline", "fdrl", "eac", "word2vec_a0"]
    assert runs["eac"]["accuracy, %"] == "70.0 ± 0.0"
    assert runs["eac"]["to the baseline, points"].startswith("+10.0 (+")
    assert float(runs["eac"]["p"]) < 0.05
    both = ("public_test: last, %", "best epoch, % |")
    assert [runs["eac"][name] for name in both] == ["70.0", "70.0 |"]
    assert [runs["baseline"][name] for name in both] == ["60.0", "62.0 |"]
    assert runs["baseline"]["lowest recall, %"] == "25 (disgust)"
    assert runs["fdrl"]["lowest recall, %"] == "**0 (disgust)**"
    assert runs["fdrl"]["to the baseline, points"] == "+0.0 (+0.0 to +0.0)"  # on the one seed that both have
    assert runs["word2vec_a0"]["p"] == "1.000"
    assert "Too weak to mean anything, 10 points and more below the baseline: psr (30.0 %)." in table(METHODS, tmp_path)
    assert [row[-1] for row in rows[5:]] == [" |", "yes |"]


def test_a_learning_rate_that_loses_a_class_is_not_chosen():
    probes = [
        {"learning_rate": rate, "accuracy": accuracy, "recall": {"fear": recall, "anger": 0.5}}
        for rate, accuracy, recall in (("a", 0.6, 0.1), ("b", 0.7, 0), ("c", 0.5, 0.2))
    ]
    probes.append({"learning_rate": "d", "accuracy": 0.0, "recall": {}, "diverged": "training diverged at step 7"})
    assert best_rate(probes, "abcd") == "a"
    assert best_rate(probes, "bd") == "b"


def test_a_probe_that_diverges_is_a_record(tmp_path, monkeypatch):
    def diverge(*_):
        raise Diverged("training diverged at step 7")

    monkeypatch.setattr(equal_terms, "run", diverge)
    config = probe_config("fer2013", "psr", 8.0, {})
    found = equal_terms.probe("psr", "adam 1", config, epath.Path(tmp_path), "")
    assert (found["accuracy"], found["diverged"]) == (0, "training diverged at step 7")
    assert "init_from" not in found["config"]


def test_methods_come_one_after_the_other_with_their_probes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(equal_terms, "_affordable", lambda *_: 20.0)
    monkeypatch.setattr(equal_terms, "_check_landmarks", lambda *_: None)
    monkeypatch.setattr(equal_terms, "read_records", lambda *_: dict.fromkeys(METHODS))
    monkeypatch.setattr(equal_terms, "best_rate", lambda _, tried: list(tried)[1])
    given = argparse.Namespace(
        data="fer2013", methods="", seeds=3, data_dir="", out=tmp_path, workdir=epath.Path(tmp_path)
    )
    paths = [str(path.relative_to(tmp_path)) for path, *_ in equal_terms._runs(given)]
    assert paths[:6] == [
        *(f"probes/baseline_sgd_{rate}.json" for rate in ("0.033", "0.1", "0.3")),
        *(f"runs/baseline_seed{seed}.json" for seed in range(3)),
    ]
    order = ["baseline", "fdrl", "eac", "acnn", "baseline_occluded", "scn", "rul", "word2vec", "word2vec_a0"]
    order += ["psr", "nla"]
    assert [path[5:-11] for path in paths if path.startswith("runs/") and path.endswith("_seed0.json")] == order
    assert sum("word2vec_a0" in path for path in paths) == 4
    assert paths.index("pretraining/psr_sr.json") == paths.index("probes/psr_adam_0.0017.json") - 1
    assert len(paths) == 11 * 3 + 9 * 3 + 2 + 1
    given.methods, given.seeds = "nla,eac", 1
    names = [path.stem for path, *_ in equal_terms._runs(given) if path.parent.name == "runs"]
    assert names == ["eac_seed0", "nla_seed0"]


def test_ferplus_takes_the_best_methods_on_public_test(tmp_path):
    (tmp_path / "runs").mkdir()
    for last, method in enumerate(("baseline", "scn", "rul", "nla", "eac", "word2vec_a0")):
        values = {"method": method, "curve": [0.9, last / 10], "accuracy": -last}
        (tmp_path / "runs" / f"{method}.json").write_text(json.dumps(values))
    assert equal_terms.best(tmp_path) == ["eac", "nla", "rul"]
    with pytest.raises(UserError, match="train FER-2013 first, or give --methods"):
        equal_terms.best(tmp_path / "none")


def test_a_run_is_measured_probed_recorded_and_not_repeated(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(equal_terms, "recipe", lambda *_: tiny("baseline", max_steps=4))
    monkeypatch.setattr(equal_terms, "SPLIT", "test")
    monkeypatch.setattr(equal_terms, "FACTORS", (1.0,))
    monkeypatch.setattr(equal_budget, "STEPS", 1)
    for setting in ("keep_freed_memory", "use_compilation_cache"):  # they would outlast the test
        monkeypatch.setattr(comparison, setting, lambda: None)
    arguments = ["--methods=baseline", "--seeds=1", f"--out={tmp_path / 'out'}", f"--workdir={tmp_path / 'runs'}"]
    arguments += [f"--data_dir={tiny().data.data_dir}"]
    assert equal_terms.main(arguments) == 2
    assert "baseline.json is not there: the same command with --measure writes it" in capsys.readouterr().err
    assert equal_terms.main([*arguments, "--measure"]) == 0
    for _ in range(2):
        assert equal_terms.main(arguments) == 0
    assert capsys.readouterr().out.count("runs, baseline_seed0\n") == 1
    (found,) = (json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").glob("*.json"))
    assert found["steps"] == 4
    assert found["core_minutes"] > 0
    assert found["curve"]
    assert len(found["recall"]) == 7
    assert str(tmp_path) not in json.dumps(found)
    assert f"| baseline | {found['parameters']:,} | {found['learning_rate']} |" in (tmp_path / "out.md").read_text()
    assert equal_terms.main(["--methods=eca"]) == 2
    assert "did you mean 'eac'?" in capsys.readouterr().err


def test_each_arm_of_the_ablation_changes_what_it_names():
    assert len(ablation.ingredients()) == ablation.COUNT
    arms = {"recipe": {}} | ablation.ingredients() | ablation.others()
    control = dict(leaves(ablation.config_of("recipe", 1), ()))
    for arm, fields in arms.items():
        config = ablation.config_of(arm, 1)
        check_config(config)
        assert {path for path, value in leaves(config, ()) if value != control[path]} == set(fields)
        assert (config.data.validation_split, config.data.test_split, config.selection.rule) == (
            "",
            "public_test",
            "last",
        )
    assert control["train.epochs"] == 40.0
