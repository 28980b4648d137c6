"""Several seeds in turn: each is the run of that seed alone, a killed sweep goes on, and what is said of them all."""

import functools
import json
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from scipy import stats

from fer_jax.config.protocol import part_to_test
from fer_jax.data.sources.rows import mark_valid, take_rows
from fer_jax.data.sources.source import load
from fer_jax.errors import UserError
from fer_jax.evaluation.evaluate import score
from fer_jax.evaluation.results import Scored
from fer_jax.inference.evaluate import evaluate
from fer_jax.runs.results import write_predictions
from fer_jax.runs.workdir import check_owner, default_workdir
from fer_jax.sweeps import sweep
from fer_jax.training import loop
from fer_jax.training.runner import StepRunner, training_program
from fer_jax.training.setup import make_setup
from fer_jax.training.step import train_step

ONE_DEVICE = {"train.devices": 1}
NAMES = ("accuracy", "mean_recall", "macro_f1", "nll", "ece")


@pytest.fixture
def seeds_of(tiny):
    """A function that makes a config small enough to train with several seeds."""

    def make(seeds=2, seed=4, **train):
        config = tiny("baseline", max_steps=2, **train)
        config.seed, config.seeds = seed, seeds
        config.evaluation.bootstrap = 20
        return config

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("seeds") / "run")


def test_a_killed_sweep_goes_on_and_each_seed_is_that_seed_alone(seeds_of, finished, monkeypatch, capsys):
    original, trained = loop.train, []

    def killed(config, workdir):
        """The second seed makes one of its two steps."""
        trained.append(config.seed)
        if config.seed == 5 and not (workdir / "checkpoints").exists():
            with monkeypatch.context() as patch:
                patch.setattr(loop, "_should_stop", lambda signals, _: signals.caught.append(signal.SIGTERM) or True)
                return original(config, workdir)
        return original(config, workdir)

    monkeypatch.setattr(loop, "train", killed)
    config = seeds_of()
    with pytest.raises(loop.Interrupted, match="at step 1"):
        sweep.train(config, finished)
    assert trained == [4, 5]
    assert not (finished / "results.json").exists()
    before = (finished / "seed04" / "results.json").read_bytes()
    with pytest.raises(UserError, match="seed 5 in .*seed05 is not finished: start the command that trains"):
        sweep.evaluate(finished, changes=ONE_DEVICE)

    capsys.readouterr()
    results = sweep.train(config, finished)
    said = capsys.readouterr().out
    assert said.count("is finished") == said.count("resumed at step 1 of 2") == 1
    assert (finished / "seed04" / "results.json").read_bytes() == before

    singles = [json.loads((finished / f"seed0{seed}" / "results.json").read_text()) for seed in (4, 5)]
    assert [seed["seed"] for seed in results["seeds"]] == [single["seed"] for single in singles] == [4, 5]
    assert len({seed["params_sha256"] for seed in results["seeds"]}) == 2
    for name in NAMES:
        each = [single[name] for single in singles]
        assert [seed[name] for seed in results["seeds"]] == each
        assert results[name] == results["mean"][name] == pytest.approx(np.mean(each))
        assert results["std"][name] == pytest.approx(np.std(each, ddof=1))
        half = stats.t.ppf(0.975, 1) * stats.sem(each)
        assert results["interval"][name] == pytest.approx([np.mean(each) - half, np.mean(each) + half])
    assert json.loads((finished / "results.json").read_text()) == results
    assert f"2 seeds: accuracy {results['mean']['accuracy']:.4f} ± " in said

    alone = seeds_of(seeds=1, seed=5)
    check_owner(finished / "seed05", alone)  # the folder of a run of that seed
    reference = original(alone, finished.parent / "alone")
    assert reference["params_sha256"] == results["seeds"][1]["params_sha256"]
    assert [reference[name] for name in NAMES] == [results["seeds"][1][name] for name in NAMES]


def test_ctrl_c_between_the_last_save_and_the_test_ends_the_sweep(seeds_of, tmp_path, monkeypatch):
    original = StepRunner.close

    def close(steps):
        signal.raise_signal(signal.SIGINT)
        original(steps)

    monkeypatch.setattr(StepRunner, "close", close)
    with pytest.raises(loop.Interrupted, match="stopped by SIGINT at step 2, saved"):
        sweep.train(seeds_of(), epath.Path(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").glob("seed*")] == ["seed04"]
    assert not (tmp_path / "run" / "seed04" / "results.json").exists()


def test_it_says_that_it_is_finished_and_whose_folder_it_is(seeds_of, finished, capsys):
    sweep.train(seeds_of(), finished)
    said = f"{finished} is finished: synthetic_faces/basic test, 70 images, 2 seeds: accuracy"
    assert said in capsys.readouterr().out
    other = seeds_of(seed=5)
    other.optimizer.learning_rate = 0.5
    (finished.parent / "other").mkdir(parents=True, exist_ok=True)
    (finished / "seed05").rename(finished.parent / "other" / "seed05")
    with pytest.raises(UserError, match="other/seed05 belongs to another config .optimizer.learning_rate: .* -> 0.5"):
        sweep.train(other, finished.parent / "other")
    (finished.parent / "other" / "seed05").rename(finished / "seed05")


def test_seeds_are_added_later(seeds_of, finished, tmp_path, monkeypatch):
    grown = epath.Path(tmp_path / "grown")
    shutil.copytree(finished, grown)
    different = seeds_of(seeds=3)
    different.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match="belongs to another config .optimizer.learning_rate: .* -> 0.5"):
        sweep.train(different, grown)
    assert (grown / "results.json").exists()

    original, third = loop.train, json.loads((finished / "seed05" / "results.json").read_text()) | {"seed": 6}

    def train(config, workdir):
        """The seed that is added is stopped at once, then has the scores of another one."""
        if config.seed != 6:
            return original(config, workdir)
        if (grown / "second").exists():
            return third
        raise loop.Interrupted(signal.SIGTERM, 0)

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(loop.Interrupted):
        sweep.train(seeds_of(seeds=3), grown)
    assert not (grown / "results.json").exists()  # it is not finished any more
    (grown / "second").touch()
    results = sweep.train(seeds_of(seeds=3), grown)
    assert [seed["seed"] for seed in results["seeds"]] == [4, 5, 6]
    assert results["seeds"][:2] == json.loads((finished / "results.json").read_text())["seeds"]
    with pytest.raises(UserError, match="belongs to another config .seeds: 3 -> 2"):
        sweep.train(seeds_of(), grown)


def test_every_seed_is_scored_again(seeds_of, finished, tmp_path):
    stored = json.loads((finished / "results.json").read_text())
    results = sweep.evaluate(finished, changes=ONE_DEVICE)
    for name in (*NAMES, "mean", "std", "interval"):
        assert results[name] == stored[name]
    assert results["seeds"][0]["folder"] == "../seed04/evaluation-test"
    assert json.loads((finished / "evaluation" / "results.json").read_text()) == results
    on_train = sweep.evaluate(finished, split="train", changes=ONE_DEVICE)
    assert (on_train["split"], on_train["num_examples"]) == ("train", 280)
    assert (finished / "evaluation-train" / "results.json").exists()
    assert json.loads((finished / "results.json").read_text()) == stored
    with pytest.raises(UserError, match="give the folder of one run, of one seed"):
        evaluate(finished)
    start = seeds_of(seeds=1)
    start.init_from = str(finished)
    with pytest.raises(UserError, match="give the folder of one run"):
        loop.train(start, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_seeds_that_were_scored_on_different_examples(seeds_of, finished):
    kept = (finished / "results.json").read_bytes()
    (finished / "results.json").unlink()
    path = finished / "seed05" / "results.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | {"num_examples": 71}))
    with pytest.raises(UserError, match="seed05 was scored on other examples than .*seed04 .num_examples 71, there 70"):
        sweep.train(seeds_of(), finished)
    path.write_text(whole)
    (finished / "results.json").write_bytes(kept)


def test_damaged_files_of_a_seed_cost_no_training(seeds_of, finished, tmp_path, monkeypatch):
    """Of the first seed its results and a line of its log, of the last one everything but the results."""
    workdir = epath.Path(tmp_path / "run")
    shutil.copytree(finished, workdir)
    (workdir / "results.json").unlink()
    first, last = workdir / "seed04", workdir / "seed05"
    (first / "results.json").unlink()
    (first / "checkpoints" / "3").mkdir()  # a save that was cut short
    log = (first / "metrics.jsonl").read_text()
    (first / "metrics.jsonl").write_text(log + '{"kind": "tra')
    kept = (last / "results.json").read_bytes()
    (last / "checkpoints").rmtree()
    (last / "metrics.jsonl").unlink()

    monkeypatch.setattr(StepRunner, "run", lambda *_: pytest.fail("it trained"))
    results = sweep.train(seeds_of(), workdir)
    whole = json.loads((finished / "results.json").read_text())
    assert [seed["params_sha256"] for seed in results["seeds"]] == [seed["params_sha256"] for seed in whole["seeds"]]
    assert [results[name] for name in NAMES] == [whole[name] for name in NAMES]
    assert (first / "metrics.jsonl").read_text() == log
    assert (last / "results.json").read_bytes() == kept


def guessing(config, workdir):
    """Stands for the training of one fold with one seed: it guesses, and leaves what such a run leaves."""
    setup = make_setup(config)
    test = part_to_test(config, load(config.data, "train", training=False))
    logits = np.random.default_rng(config.seed).normal(size=(len(test), 7)).astype(np.float32)
    scored = Scored(test, {"logits": logits}, score({"logits": logits}, test, bootstrap=0))
    facts = {"selection": {"best_step": 2}, "steps": 2, "params": 3, "params_sha256": "0", "wall_seconds": 1.0}
    facts |= {"training_examples": len(setup.train), "validation_examples": len(setup.validation)}
    results = scored.scores | facts
    workdir.mkdir(parents=True)
    write_predictions(workdir, scored, ("logits",))
    (workdir / "results.json").write_text(json.dumps(results))
    return results


def test_every_fold_of_every_seed(seeds_of, tmp_path, monkeypatch):
    config = seeds_of(seed=0)
    config.fold, config.data.folds = "all", "subject:2"
    config.evaluation.report = False
    monkeypatch.setattr(loop, "train", guessing)
    results = sweep.train(config, epath.Path(tmp_path / "run"))
    each = [json.loads((tmp_path / "run" / f"seed0{seed}" / "results.json").read_text()) for seed in (0, 1)]
    assert [len(one["folds"]) for one in each] == [2, 2]
    assert results["mean"]["accuracy"] == pytest.approx(np.mean([one["pooled"]["accuracy"] for one in each]))
    assert results["fold"] == {"number": "all", "of": 2, "by": "subject:2"}
    assert results["protocol"].startswith("Each of 2 folds")
    assert (results["num_examples"], results["wall_seconds"]) == (280, 4.0)
    with pytest.raises(UserError, match="holds a run for every fold.*: score one of them.*seed00.fold01"):
        sweep.evaluate(epath.Path(tmp_path / "run"), split="test", changes=ONE_DEVICE)


def test_nothing_is_written_before_everything_fits(seeds_of, tmp_path):
    last = 2**31 - 1
    for change, says in (
        ({"seeds": 0}, "config.seeds=0 is out of range: .* in .1, 1000"),
        ({"seed": last}, f"config.seeds=2: .*config.seed={last}"),
        ({"data.holdout_fraction": 0.0}, "leaves nothing to validate"),
    ):
        config = seeds_of()
        config.update_from_flattened_dict(change)
        with pytest.raises(UserError, match=says):
            sweep.train(config, epath.Path(tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_the_folder_of_several_seeds(seeds_of):
    assert str(default_workdir(seeds_of(seeds=1))).endswith("baseline/smoke")
    several = seeds_of()
    assert str(default_workdir(several)).endswith("baseline/smoke_seeds")
    several.fold = "3"
    assert str(default_workdir(several)).endswith("baseline/smoke_seeds/fold03")


def test_seeds_share_the_compiled_program_and_draw_differently(tiny):
    """The program of a seed is that of another; its step is the step of a task that has the seed as a constant."""
    texts, steps = [], []
    for seed in (3, 4):
        config = tiny("baseline", devices=1)
        config.seed, config.model.dropout = seed, 0.5
        setup = make_setup(config)
        feed, state = StepRunner(setup, 0), setup.init()
        rows = np.stack([next(feed._batches)])
        texts.append(training_program(setup).lower(state, feed._seed, feed._data, rows).as_text())
        if seed == 3:  # the other one's program, of the same text, gets its seed in the same way
            batch = take_rows(feed._data, jnp.asarray(rows[0]))
            constant = jax.jit(functools.partial(train_step, setup.task, setup.tx, setup.schedule))
            _, expected = constant(state, mark_valid(batch))
        feed.close()
        feed = StepRunner(setup, 0)
        _, metrics, _ = feed.run(state, 1)
        feed.close()
        steps.append(float(metrics["loss/total"][0]))
    np.testing.assert_allclose(steps[0], expected["loss/total"], rtol=1e-6)
    assert texts[0] == texts[1]
    assert abs(steps[0] - steps[1]) > 1e-3
