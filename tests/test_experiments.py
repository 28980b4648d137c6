"""Every experiment: its variants are sound, and its smoke form trains, stops, goes on and is evaluated."""

import functools
import importlib
import json
import pathlib

import jax
import pytest
from built import build_model
from etils import epath

from experiments import presets
from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.data.sources import source
from fer_jax.data.sources.source import Source
from fer_jax.errors import UserError
from fer_jax.inference.evaluate import evaluate
from fer_jax.labels import COMPOUND_EMOTIONS, EMOTIONS
from fer_jax.training import loop
from fer_jax.training.optimizer import make_optimizer
from fer_jax.training.state import num_parameters
from tfds_builders import registry

EXPERIMENTS = sorted(
    path.stem
    for path in (pathlib.Path(__file__).parents[1] / "experiments").glob("*.py")
    if "def get_config" in path.read_text()
)

ONE_DEVICE = {"train.devices": 1}  # as in training: on several the last digits may differ
OTHER_SPLIT = ("baseline", "fan", "psr_sr")  # images, clips, and measures in place of classes: no method sees a split

SIZED = ("acnn", "psr", "rul")  # whose parameters or demands depend on the size of the image

# Each method once, and two strategies: with neighbors in the batch, with a part of its own in the model. Others train
# in -m slow; tests/training/test_strategy_runs.py and test_distribution_runs.py trace them.
QUICK = {*methods.names(), "fer2013_fast", "ldl_alsg", "scn"}

CLASSIFICATION = "accuracy mean_recall macro_f1 nll ece confusion accuracy_interval mean_recall_interval"


def experiment_module(experiment):
    return importlib.import_module(f"experiments.{experiment}")


def get_config(experiment, variant):
    return experiment_module(experiment).get_config(variant)


def variants():
    """(experiment, variant) of all there are: an experiment's own VARIANTS, else those of the presets."""
    return [(e, v) for e in EXPERIMENTS for v in getattr(experiment_module(e), "VARIANTS", presets.VARIANTS)]


def test_every_method_has_an_experiment():
    assert {get_config(e, "smoke").method for e in EXPERIMENTS} == set(methods.names())


def test_every_data_set_has_an_experiment():
    used = {get_config(experiment, variant).data.dataset.partition("/")[0] for experiment, variant in variants()}
    assert used == set(registry.names()) - {"fed_ro"}  # which is for tests only


@pytest.mark.parametrize(("experiment", "variant"), variants())
def test_a_variant_is_sound_and_its_model_builds_in_full(experiment, variant):
    config = get_config(experiment, variant)
    check_config(config)
    assert (config.experiment, config.variant) == (experiment, variant)
    clips = methods.load(config.method).takes == "frames"
    points = (3, 68) if clips else (68,) if config.data.points == "face68" else (24,)
    size = config.data.image_size if config.method in SIZED else 48
    classes = COMPOUND_EMOTIONS if config.method == "compound" else EMOTIONS[:7]
    count = parameters(build_model(config, classes), size, points)
    full = {"baseline": 11_180_103, "fan": 11_185_225, "fdrl": 12_065_607, "scn": 11_180_616, "word2vec": 11_373_504}
    network = "baseline" if config.model.get("attention") == "score_fusion" else experiment
    if network in full and config.model.width == 64:
        smaller_stem = (49 - 9) * 3 * 64 if config.model.stem == "small" else 0  # 3x3 in place of 7x7
        affect = 2 * (512 + 1) if config.model.get("affect") else 0
        assert count == full[network] - smaller_stem + affect


@functools.cache  # many data sets have one model, and few models depend on the size
def parameters(model, size, points):
    batch = {
        "image": jax.ShapeDtypeStruct((2, size, size, 3), "float32"),
        "frames": jax.ShapeDtypeStruct((2, 3, size, size, 3), "float32"),
        "frame_mask": jax.ShapeDtypeStruct((2, 3), "bool"),
        "target": jax.ShapeDtypeStruct((2, 7), "float32"),
        "points": jax.ShapeDtypeStruct((2, *points, 2), "float32"),
    }
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return num_parameters(jax.eval_shape(lambda b: model.init(keys, b, train=True), batch)["params"])


def test_acnn_on_its_own_data_is_the_paper_network_and_recipe():
    for variant in ("rafdb", "affectnet"):
        config = get_config("acnn", variant)
        model = build_model(config, EMOTIONS[:7])
        batch = {
            "image": jax.ShapeDtypeStruct((2, config.data.image_size, config.data.image_size, 3), "float32"),
            "points": jax.ShapeDtypeStruct((2, 24, 2), "float32"),
        }
        variables = jax.eval_shape(lambda b, m=model: m.init(jax.random.key(0), b, train=False), batch)
        assert num_parameters(variables["params"]) == 209_274_495
        make_optimizer(config, variables["params"], 100, 10)  # refuses a group that finds no parameter


@pytest.mark.parametrize(
    "experiment", [e if e in QUICK else pytest.param(e, marks=pytest.mark.slow) for e in EXPERIMENTS]
)
def test_the_smoke_form_trains_resumes_and_is_evaluated(experiment, tiny, tmp_path, capsys, monkeypatch):
    config = tiny(experiment, max_steps=4)
    workdir = epath.Path(tmp_path / experiment)
    results = loop.train(config, workdir)
    assert results["num_examples"] == config.data.builder.test
    assert results["steps"] == (1 if methods.load(config.method).fit else 4)
    written = """experiment variant dataset split classes selection epochs seed params params_sha256
        images_per_second wall_seconds device versions"""
    own = list(results.get("measures", ()))  # of a method that predicts no classes
    voted = ["kl_to_votes"] if results["classes"] == list(EMOTIONS[:7]) else []  # nobody votes for a pair
    for field in (*written.split(), *(own or (*CLASSIFICATION.split(), *voted))):
        assert field in results
    assert json.loads((workdir / "config.json").read_text())["config"]["method"] == config.method
    assert "plain" not in results  # no views: the scores are those of the images alone

    loop.train(config, workdir)
    assert "is finished" in capsys.readouterr().out
    evaluated = evaluate(workdir, changes=ONE_DEVICE)
    same = ("params_sha256", *(own or ("accuracy", "nll", "confusion", "mean_recall_interval")))
    assert {k: evaluated[k] for k in same} == {k: results[k] for k in same}
    if experiment in OTHER_SPLIT:
        on_train = evaluate(workdir, split="train", changes=ONE_DEVICE)
        assert on_train["num_examples"] == config.data.builder.train


def test_the_options_of_training_train_together_and_the_test_split_is_read_once(tiny, tmp_path, monkeypatch):
    read = []
    original = source.load

    def remember(config, split, *, training) -> Source:
        read.append(split)
        return original(config, split, training=training)

    monkeypatch.setattr("fer_jax.training.results.load", remember)
    monkeypatch.setattr("fer_jax.inference.evaluate.load", remember)
    monkeypatch.setattr("fer_jax.training.examples.load", remember)
    config = tiny("baseline", max_steps=4, accumulate=2, ema_decay=0.9, dtype="bfloat16")
    config.data.class_weights = True
    config.data.balanced_sampling = True
    config.data.label_smoothing = 0.1
    config.evaluation.flip = True
    config.augmentation.train = ("crop:59", "flip", "rotate:10", "brightness:0.2", "erase:0.5")
    config.optimizer.clip_norm = 1.0
    config.optimizer.groups = (("trunk/", {"lr_multiplier": 0.1}), ("classifier/", {"frozen": True}))
    workdir = epath.Path(tmp_path / "run")
    assert loop.train(config, workdir)["steps"] == 4
    assert read == ["train", "test"]
    with pytest.raises(UserError, match="no split 'tests'; did you mean 'test'"):
        evaluate(workdir, split="tests")


def test_votes_train_as_several_targets_with_the_test_split_as_judge_which_is_said(tiny, tmp_path, capsys):
    config = tiny(max_steps=2)
    config.data.target, config.loss.options.classification = "multi_target", "multi_target"
    config.selection.rule = "best_on_test"
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert len(results["classes"]) == 8
    assert results["kl_to_votes"] > 0
    assert "TEST (selection on it" in capsys.readouterr().out
    assert results["selection"]["rule"] == "best_on_test"
    assert results["accuracy"] == results["selection"]["best_validation"]["accuracy"]


def test_sixteen_images_can_be_learned_by_heart(tiny, tmp_path):
    config = tiny(max_steps=100, log_every_steps=10, eval_every_epochs=1000.0)
    config.model.depth, config.model.width = 10, 16
    config.train.epochs = 1000.0
    config.data.builder.train = 28
    config.data.holdout_fraction = 0.4
    config.augmentation.train = ()
    config.optimizer.learning_rate = 3e-3
    workdir = epath.Path(tmp_path / "run")
    loop.train(config, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "train"][-1]["accuracy"] > 0.95
