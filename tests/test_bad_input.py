"""A user's mistake gets one line: what is wrong, where, what to do; status 2, nothing half-written."""

import dataclasses
import functools
import json
import os
import re
import shutil

import jax.numpy as jnp
import pytest
from etils import epath

from fer_jax.config.check import check_config
from fer_jax.config.fields import assign, default_config
from fer_jax.config.steps import count_steps
from fer_jax.data.sources.source import prepared_builder
from fer_jax.errors import Diverged, UserError
from fer_jax.inference.evaluate import evaluate
from fer_jax.methods import fdrl
from fer_jax.runs.checkpoint import has_checkpoint
from fer_jax.runs.workdir import check_owner, claim, stored_config
from fer_jax.training import loop

COMMAND_LINES = {
    "--config=experiments/fdlr.py": "experiments/fdlr.py; did you mean 'experiments/fdrl.py'?",
    "--config=experiments/fdrl.py:smke": "no variant 'smke'; did you mean 'smoke'?",
    "--config=experiments/fdrl.py --config.optimizer.learning_rat=1": "did you mean 'optimizer.learning_rate'?",
    "--config=experiments/fdrl.py --config.learning_rate=1": "did you mean 'optimizer.learning_rate'?",
    "--config=experiments/fdrl.py --config.lr=1": "did you mean 'optimizer.learning_rate'?",
    "--config=experiments/fdrl.py --config.seed=one": "--config.seed=one: give a whole number",
    "--config=experiments/fdrl.py --config.evaluation.flip --config.seed=1": "--config.evaluation.flip=VALUE",
    "--config=experiments/fdrl.py --noconfig.evaluation.flip": "did you mean 'config.evaluation.flip'?",
    "--config=experiments/fdrl.py -config.seed=1": "did you mean 'config.seed'?",
    "--config=experiments/fdrl.py --flagfile=x": "--flagfile=x: there is no such option",
    "evaluate --config.model.official_eval=True": "no model file and no run at",
    "--config=experiments/fdrl.py --config.data.exclude=(black": "data.exclude=(black: give a tuple such as ('a', 'b')",
    "--config.seed=1": "say what to train",
    "": "say what to train",
    "--epochs=3": "--epochs=3: .* did you mean 'config.train.epochs'?",
    "evaluat --config=experiments/fdrl.py": "did you mean 'evaluate'?",
    "evaluate": "--model=",
    "experiments/fdrl.py": "--config=experiments/fdrl.py",
    "train experiments/fdrl.py": "--config=experiments/fdrl.py",
    "--config=experiments/fdrl.py --wrkdir=x": "did you mean 'workdir'?",
    "--config=experiments/fdrl.py --split=train": "--split is an option of evaluate",
    "--config=experiments/fdrl.py:smoke --config.train.platform=tpu": "no such device here",
    "--config=experiments/fdrl.py:smoke --distributed --coordinator=localhost:1234": "leave out --coordinator",
    "--config=experiments/fdrl.py:smoke --config.data.folds=subject:10 --config.fold=11": "there are 10 folds",
    "--config=experiments/fdrl.py:fer2013 --config.data.data_dir=/nowhere": "python -m tfds_builders build fer2013",
}


@pytest.mark.parametrize("arguments", COMMAND_LINES)
def test_the_command_line(arguments, run_here, tmp_path):
    done = run_here(*arguments.split(), *(["--workdir=" + str(tmp_path / "run")] if "--config" in arguments else []))
    assert_refused(done, COMMAND_LINES[arguments], tmp_path)


def test_the_process_of_a_command(run_py, tmp_path):
    """What is found before anything large is imported, and what the devices tell."""
    assert_refused(run_py("--epochs=1"), "'config.train.epochs'", tmp_path)
    config = ("--config=experiments/fdrl.py:smoke", "--config.train.devices=2")
    assert_refused(run_py(*config, f"--workdir={tmp_path / 'run'}"), "there are 1; give 0", tmp_path)


def assert_refused(done, says, tmp_path):
    assert done.returncode == 2, done.stdout
    *drawn, line = done.stdout.splitlines()  # whoever needs the faces first draws them, and says so
    assert "Traceback" not in " ".join(drawn)
    assert line.startswith("error: ")
    assert re.search(re.escape(says).replace(r"\.\*", ".*"), line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("method", "fdlr", "no method 'fdlr' .* did you mean 'fdrl'"),
        ("data.dataset", "synthetic_face/basic", "did you mean 'synthetic_faces'"),
        ("data.dataset", "synthetic_faces/basics", "did you mean 'basic'"),
        ("data.test_split", "tst", "no split 'tst'; did you mean 'test'"),
        ("data.validation_split", "test", "is the test split"),
        ("data.validation_split", "train", "is the training split"),
        ("data.test_split", "train", "is the training split"),
        ("augmentation.train", ("flip", "shift:500"), "'shift:500'.*64x64; give 63 at most"),
        ("augmentation.train", ("flp",), "no operation 'flp'; did you mean 'flip'"),
        ("augmentation.train", ("crop:40", "crop_scale:0.5-1"), "exclude each other"),
        ("data.builder.seed", -1, "seed is -1"),
        ("data.exclude", ("blck",), "no flag 'blck'"),
        ("data.target", "majorty", "did you mean 'majority'"),
        ("data.points", "face2", "config.data.points='face2': did you mean 'face24'"),
        ("data.holdout_fraction", 0.0, "leaves nothing to validate"),
        ("train.batch_size", 30, "cannot be shared by 4 devices; give 28 or 32"),
        ("train.epochs", 0.0, r"config.train.epochs=0.0 .* in \(0, inf\)"),
        ("train.epochs", float("nan"), "config.train.epochs=nan: .* finite .* in .0, inf"),
        ("train.batch_size", 16.5, "config.train.batch_size=16.5: give a whole number"),
        ("data.exclude", "black", "config.data.exclude='black': give a tuple"),
        ("train.ema_decay", 1.0, "config.train.ema_decay=1.0 .* in .0, 1.$"),
        ("model.width", 0, "config.model.width=0 .* whole number in .1, inf"),
        ("optimizer.groups", ("trunk",), "give \\('expression'"),
        ("schedule.boundaries_epochs", (-1.0,), "config.schedule.boundaries_epochs=.* give epochs"),
        ("schedule.boundaries_epochs", ("a",), "config.schedule.boundaries_epochs=.*: 'a' is not a number"),
        ("preprocessing.mean", ("a", 0.5, 0.5), "config.preprocessing.mean=.*: 'a' is not a number"),
        ("optimizer.groups", (("trunk", {"lr_multiplier": -0.1}),), r"groups\[0\].lr_multiplier=-0.1 .* in .0, inf"),
        ("loss.weights.balance", float("nan"), "config.loss.weights.balance=nan: .* finite"),
        ("augmentation.train", ("rotate:inf",), "'rotate:inf'.*give 0 to 180"),
        ("data.target", "multi_target", "config.loss.options.classification='cross_entropy' does not fit"),
        ("data.builder.train", 0, "train is 0"),
        ("preprocessing.std", (0.5, 0.0, 0.5), "give numbers above 0"),
        ("optimizer.name", "adm", "did you mean 'adam'"),
        ("model.depth", 19, "depth"),
    ],
)
def test_a_field_with_a_wrong_value(path, value, says, tiny, tmp_path):
    config = tiny("fdrl", devices=0)
    *groups, name = path.split(".")
    here = config
    for group in groups:
        here = here[group]
    with config.ignore_type():
        here[name] = value
    with pytest.raises(UserError, match=says) as caught:
        loop.train(config, epath.Path(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_more_steps_than_a_run_can_count(tiny, tmp_path):
    config = tiny(max_steps=0, epochs=1e30)
    says = r"config\.train\.epochs=1e\+30 gives 1\.\d+e\+31 steps at .*batch_size=16, .* give \d{8} at most"
    with pytest.raises(UserError, match=says):
        loop.train(config, epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    config.train.epochs = config.train.eval_every_epochs = 1e308  # whose steps are not even a number
    with pytest.raises(UserError, match="gives inf steps at config.train.batch_size=16"):
        count_steps(config, 14.0)
    config.train.max_steps = 6  # ends it
    assert count_steps(config, 14.0) == (6, 6)


def test_a_dropout_that_is_no_share(tiny):
    config = tiny()
    config.model.dropout = 1.0
    with pytest.raises(UserError, match="config.model.dropout=1.0.* in .0, 1"):
        check_config(config)


@pytest.mark.parametrize(
    ("method", "path", "value", "nearest"),
    [
        ("word2vec", "loss.options.kind", "cosin", "cosine"),
        ("fdrl", "model.edge", "euclidean", "euclid"),
    ],
)
def test_a_choice_of_a_method_that_does_not_exist(method, path, value, nearest):
    config = default_config("", "", method)
    assign(config, path, value)
    with pytest.raises(UserError, match=f"config.{path}='{value}': did you mean '{nearest}'"):
        check_config(config)


def test_a_field_that_nobody_reads(tiny):
    config = tiny("fdrl")
    with config.unlocked():
        config.train.label_smothing = 0.1
    with pytest.raises(UserError, match=r"config.train.label_smothing: .* 'data.label_smoothing'"):
        check_config(config)
    config = tiny("fdrl")
    with config.unlocked():
        config.model.wdth = 8
    with pytest.raises(UserError, match=r"config.model.wdth: .* 'model.width'"):
        check_config(config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def trained(tiny, finished, tmp_path):
    """The work directory of a run of two steps, a copy of its own for each test; it is trained once for this file."""
    if not finished.exists():
        loop.train(tiny(max_steps=2), epath.Path(finished))
    return epath.Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("content", ["{", '{"version": "0.9.0", "name": "synthetic_faces"}'])
def test_a_data_set_of_another_version(content, tiny, tmp_path):
    config = tiny(max_steps=2)
    config.data.data_dir = str(tmp_path)
    folder = prepared_builder(config.data).data_path
    (folder / "dataset_info.json").write_text(content)
    with pytest.raises(UserError, match="the prepared data set synthetic_faces/basic .* another version wrote it"):
        loop.train(config, epath.Path(tmp_path / "run"))


def test_an_older_config_without_a_new_field_is_still_the_same_run(tiny, trained):
    stored = json.loads((trained / "config.json").read_text())
    del stored["config"]["train"]["ema_decay"]
    (trained / "config.json").write_text(json.dumps(stored))
    check_owner(trained, tiny(max_steps=2))
    with pytest.raises(UserError, match=r"train.ema_decay: None -> 0.5"):
        check_owner(trained, tiny(max_steps=2, ema_decay=0.5))


def test_a_read_only_work_directory(tiny, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")  # a folder's permissions do not stop root; a file in its place stops anyone
    with pytest.raises(UserError, match="cannot write the work directory .* give another with --workdir"):
        loop.train(tiny(), epath.Path(blocked / "run"))


@pytest.mark.parametrize("name", ["", "checkpoints", "report"])
def test_a_file_in_the_place_of_a_folder(name, tiny, tmp_path, monkeypatch):
    """It is found before anything is trained, and stays; as does what the run has said of itself."""
    monkeypatch.setattr(loop, "_train", lambda *_: pytest.fail("it trained"))
    workdir = tmp_path / "run"
    if name:
        with claim(epath.Path(workdir), tiny(max_steps=2)):
            pass
    (workdir / name).write_text("in the way")
    before = {path: path.read_bytes() for path in [workdir, *workdir.rglob("*")] if path.is_file()}
    with pytest.raises(UserError, match=f"{workdir / name} is a file and must be a folder: move it away"):
        loop.train(tiny(max_steps=3), epath.Path(workdir))
    assert {path: path.read_bytes() for path in [workdir, *workdir.rglob("*")] if path.is_file()} == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_a_folder_in_the_place_of_a_log(name, tiny, trained, monkeypatch):
    monkeypatch.setattr(loop, "_train", lambda *_: pytest.fail("it trained"))
    (trained / "results.json").unlink()
    (trained / name).unlink()
    (trained / name).mkdir()
    with pytest.raises(UserError, match=f"{trained / name} is a folder and must be a file: move it away"):
        loop.train(tiny(max_steps=2), trained)
    assert has_checkpoint(trained / "checkpoints")


@pytest.mark.parametrize("name", ["evaluation-test/report", "evaluation-test"])
def test_a_file_in_the_place_of_what_an_evaluation_writes(name, trained, monkeypatch):
    monkeypatch.setattr("fer_jax.inference.evaluate.Evaluator", lambda *_: pytest.fail("it evaluated"))
    if (trained / name).exists():
        (trained / name).rmtree()
    (trained / name).parent.mkdir(exist_ok=True)
    (trained / name).write_text("in the way")
    with pytest.raises(UserError, match="is a file and must be a folder|cannot write .*: File exists"):
        evaluate(trained, changes={"train.devices": 1})
    assert (trained / name).read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the test above covers root")
def test_a_work_directory_without_permission(tiny, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write the work directory"):
        loop.train(tiny(), epath.Path(tmp_path / "run"))


def test_a_loss_that_breaks_says_which_term_and_step(tiny, tmp_path, monkeypatch):
    original = fdrl.loss

    @functools.wraps(original)
    def breaking(*arguments, **options):
        terms = original(*arguments, **options)
        return terms | {"balance": jnp.log(terms["balance"] - 1e6)}

    monkeypatch.setattr(fdrl, "METHOD", dataclasses.replace(fdrl.METHOD, loss=breaking))
    with pytest.raises(Diverged, match=r"diverged at step 1: loss/balance is nan .* lower config.optimizer"):
        loop.train(tiny("fdrl", max_steps=20, log_every_steps=5), epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run" / "results.json").exists()


def test_results_that_cannot_be_written(tiny, trained, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fer_jax.runs.results.write_json", full)
    (trained / "results.json").unlink()
    with pytest.raises(UserError, match="cannot write the results under .* No space left .* start the same command"):
        loop.train(tiny(max_steps=2), trained)


def test_evaluation_with_changes(trained, tmp_path):
    with pytest.raises(UserError, match="--config.model.width: .* scored with the config it was trained with"):
        evaluate(trained, changes={"model.width": 16})
    with pytest.raises(UserError, match=r"--config.model.official_eval: .* scored with the config"):
        evaluate(trained, changes={"model.official_eval": True})
    with pytest.raises(UserError, match="config.evaluation.batch_size=0 is out of range"):
        evaluate(trained, changes={"evaluation.batch_size": 0})
    for name in ("config.json", "results.json", "metrics.jsonl", "model.safetensors", "predictions.csv"):
        before = (trained / name).read_bytes()
        with pytest.raises(UserError, match=f"--out={trained / name} is a file that no evaluation wrote"):
            evaluate(trained, out=trained / name)
        assert (trained / name).read_bytes() == before
    (tmp_path / "in the way").write_text("")
    with pytest.raises(UserError, match="cannot write .*in the way"):
        evaluate(trained, out=epath.Path(tmp_path / "in the way" / "x.json"))
    as_trained = {"seed": stored_config(trained).seed, "evaluation.bootstrap": 0, "train.devices": 3}
    results = evaluate(trained, changes=as_trained)
    assert "accuracy_interval" not in results
