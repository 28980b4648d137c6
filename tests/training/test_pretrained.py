"""Where a run starts from: what is loaded is the model, the rest is named, and a resumed run needs no file."""

import dataclasses
import json
import os
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fer_jax import methods
from fer_jax.errors import UserError
from fer_jax.inference import trained
from fer_jax.runs.checkpoint import tree_sha256
from fer_jax.training import loop
from fer_jax.training.initial import class_paths, read_initial, with_weights
from fer_jax.training.run import Run
from fer_jax.training.setup import make_setup
from fer_jax.weights.files import WeightFile
from fer_jax.weights.networks import match
from tests.training import published_arrays
from tests.training.test_weight_files import header_and_data, pack


def flat(variables):
    return {path: np.asarray(v) for path, v in flax.traverse_util.flatten_dict(variables, sep="/").items()}


@pytest.fixture
def resnet_file(tmp_path):
    path = tmp_path / "resnet10.safetensors"
    path.write_bytes(pack(*header_and_data(published_arrays.resnet(prefix="module."))))
    return str(path)


@pytest.fixture
def tiny(tiny):
    """The same with the ResNet-10 of the file."""

    def make(*arguments, **train):
        config = tiny(*arguments, **train)
        if "depth" in config.model:
            config.model.depth = 10
        return config

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return {}


@pytest.fixture
def baseline_run(tiny, finished, tmp_path_factory):
    """The work directory of a finished baseline, trained once for this file."""
    if "baseline" not in finished:
        finished["baseline"] = tmp_path_factory.mktemp("baseline")
        loop.train(tiny(max_steps=4), epath.Path(finished["baseline"]))
    return str(finished["baseline"])


def started(config):
    setup = make_setup(config)
    fresh = setup.init()
    start = read_initial(setup)
    assert start
    before = flat(fresh.variables())
    return start, before, with_weights(fresh, start, setup.mesh), setup


def test_a_file_fills_the_trunk_and_its_moving_average(tiny, resnet_file):
    config = tiny(ema_decay=0.9)
    config.init_from = resnet_file
    start, before, state, _ = started(config)
    conv1 = published_arrays.resnet()["conv1.weight"].transpose(2, 3, 1, 0)
    for tree in (state.params, state.average["params"]):
        np.testing.assert_array_equal(tree["trunk"]["conv1"]["kernel"], conv1)
    for path, value in flat(state.variables()).items():
        changed = not np.array_equal(value, before[path])
        assert changed == ("/trunk/" in path), path
    assert start.account["sources"][0]["loaded"] == {"trunk": 60}
    assert start.account["kept_at_init"] == {"not in the source": {"classifier": 2}}
    # The two copies must not share memory: the step donates both.
    ours, averaged = state.params["trunk"]["conv1"]["kernel"], state.average["params"]["trunk"]["conv1"]["kernel"]
    assert ours.unsafe_buffer_pointer() != averaged.unsafe_buffer_pointer()


def test_the_account_names_everything_once(tiny, resnet_file):
    config = tiny()
    config.init_from = resnet_file
    config.init_ignore = ("trunk/bn1/",)
    start, _, _, setup = started(config)
    text = start.describe()
    assert text.splitlines()[0].startswith(f"  start  {resnet_file} (safetensors, sha256 ")
    assert "ignored       fc (2): its classifier" in text
    assert "bn1 (1), layer1 (2), layer2 (3), layer3 (3), layer4 (3): PyTorch's counter of batches" in text
    assert "kept at init  trunk (4): config.init_ignore" in text
    loaded = sum(start.account["sources"][0]["loaded"].values())
    kept = sum(sum(names.values()) for names in start.account["kept_at_init"].values())
    assert loaded + kept == len(flat(setup.abstract_state().params)) + len(
        flat(setup.abstract_state().collections["batch_stats"])
    )


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_a_run_of_the_same_method_is_continued_whole(file, tiny, baseline_run):
    config = tiny()
    config.init_from = os.path.join(baseline_run, file)
    start, _, state, _ = started(config)
    best, card = trained.read(baseline_run)
    for path, value in flat(state.variables()).items():
        np.testing.assert_array_equal(value, flat(best)[path], err_msg=path)
    source = start.account["sources"][0]
    assert source["sha256"] == tree_sha256(state.params, state.collections)
    assert source["holds"] == f"baseline:smoke (method baseline) at step {card['run']['selection']['best_step']}"
    assert not source["ignored"]
    assert not start.account["kept_at_init"]


def test_another_method_takes_the_trunk(tiny, baseline_run):
    config = tiny("fdrl")
    config.init_from = baseline_run
    start, before, state, _ = started(config)
    source = flat(trained.read(baseline_run)[0]["params"])
    for path, value in flat(state.params).items():
        if path.startswith("trunk/"):
            np.testing.assert_array_equal(value, source[path])
        else:
            np.testing.assert_array_equal(value, before[f"params/{path}"])
    assert start.account["sources"][0]["ignored"] == {"of the other method": {"classifier": 2}}
    assert set(start.account["kept_at_init"]["not in the source"]) == {"epn", "fdn", "intra_rm", "inter_rm"}


def test_a_longer_pyramid_takes_the_scale_that_a_run_had(tiny, tmp_path):
    """psr_sr's table of parts names both scales, and a run has one of them."""
    source = tiny("psr_sr", max_steps=1)
    source.model.width = 4
    source.model.scale = 4
    loop.train(source, epath.Path(tmp_path / "x4"))
    config = tiny("psr", devices=1)
    config.model.width = 2
    config.model.multiples = (1, 2, 4, 1)
    config.init_from = str(tmp_path / "x4")
    start, before, state, _ = started(config)
    assert start.account["sources"][0]["loaded"] == {"sr_4": sum("params/sr_4/" in path for path in before)}
    assert "sr_2" in start.account["kept_at_init"]["not in the source"]
    for path, value in flat(state.params).items():
        kernel = path.startswith("sr_4/") and path.endswith("kernel")
        assert not kernel or not np.array_equal(value, before[f"params/{path}"]), path
    config.model.multiples = (1, 2, 1)
    assert "no part in common" in refused(config)


def test_parameters_of_other_classes_stay_at_init(tiny, baseline_run, monkeypatch):
    """Even if their number is the same: the first column then means something else."""
    variables, card = trained.read(baseline_run)
    monkeypatch.setattr(trained, "read", lambda _: (variables, card | {"classes": card["classes"][::-1]}))
    config = tiny()
    config.init_from = baseline_run
    start, before, state, _ = started(config)
    assert start.account["kept_at_init"] == {"the source has other classes": {"classifier": 2}}
    after = flat(state.variables())
    for path in after:
        assert np.array_equal(after[path], before[path]) == path.startswith("params/classifier/"), path


@pytest.mark.parametrize(
    ("method", "depend"),
    [
        ("fdrl", {"epn/fc/kernel", "epn/fc/bias"}),
        ("word2vec", {"delta"}),
        ("compound", set()),  # its classes are a constant table
        ("psr", {"head/fc2/kernel", "head/fc2/bias"}),
    ],
)
def test_parameters_that_depend_on_the_classes(method, depend, tiny):
    config = tiny(method)
    if method == "word2vec":
        config.model.learn_delta = True
    setup = make_setup(config)
    classes = setup.train.classes
    assert class_paths(setup, classes) == set()
    for other in (classes[::-1], classes[:5]):
        assert class_paths(setup, other) == {f"params/{name}" for name in depend}


def test_a_path_with_a_comma(tiny, resnet_file, tmp_path):
    config = tiny()
    config.init_from = str(tmp_path / "a, b.safetensors")
    os.link(resnet_file, config.init_from)
    start = read_initial(make_setup(config))
    assert start
    assert [source["path"] for source in start.account["sources"]] == [config.init_from]
    config.init_from = f'"{config.init_from}", {tmp_path}/c'
    assert f"there is no file {tmp_path}/c" in refused(config)


def test_two_sources_fill_different_parts_only(tiny, resnet_file, baseline_run):
    config = tiny()
    config.init_from = f"{resnet_file}, {baseline_run}"
    assert "two sources fill trunk/" in refused(config)


def refused(config):
    with pytest.raises(UserError) as caught:
        read_initial(make_setup(config))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_started_from(tiny, resnet_file, baseline_run, tmp_path):
    config = tiny()
    config.init_from = str(tmp_path)
    assert "give the folder of one run" in refused(config)

    wider = tiny()
    wider.model.width = 16
    wider.init_from = baseline_run
    said = refused(wider)
    assert "differ in shape" in said
    assert "config.model.width: 8 -> 16" in said
    wider.init_from = resnet_file
    assert "ResNet-10 (width=8, stem=imagenet)" in refused(wider)

    config.init_from, config.init_ignore = resnet_file, ("trunk/cnv1",)
    assert "did you mean 'trunk/conv1/kernel'?" in refused(config)
    config.init_ignore = ("(",)
    assert "config.init_ignore: '('" in refused(config)
    config.init_from, config.init_ignore = f"{resnet_file},", ()
    assert "a path is missing beside a comma" in refused(config)
    config.init_from, config.init_ignore = "", ("fc",)
    assert "config.init_from" in refused(config)


def test_a_resumed_run_needs_its_file_no_more(tiny, resnet_file, tmp_path, monkeypatch):
    config = tiny(max_steps=6, ema_decay=0.5, eval_every_epochs=0.15)
    config.init_from = resnet_file
    stopped = epath.Path(tmp_path / "stopped")
    judge, calls = Run.update_best, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt  # between the first save and the second
        return judge(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "update_best", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, stopped)
    started_from = json.loads((stopped / "config.json").read_text())["started_from"]
    assert started_from["sources"][0]["path"] == resnet_file
    epath.Path(resnet_file).unlink()
    assert loop.train(config, stopped)["started_from"] == started_from
    with pytest.raises(UserError, match="there is no file"):
        loop.train(config, epath.Path(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_starting_from_a_trained_run_starts_better(tiny, tmp_path):
    """The first batch, before any update: it is seen as the end of the other run saw its batches."""
    first = tmp_path / "first"
    loop.train(tiny(max_steps=0, epochs=8.0, eval_every_epochs=8.0), epath.Path(first))
    begin = {}
    for name, path in (("scratch", ""), ("started", str(first))):
        config = tiny(max_steps=1, log_every_steps=1, batch_size=64)
        config.init_from = path
        results = loop.train(config, epath.Path(tmp_path / name))
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        begin[name] = line["loss/total"], line["accuracy"]
        assert (results["started_from"] == "scratch") == (name == "scratch")
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    ended = np.mean([line["loss/total"] for line in trained[-14:]])  # its last 28 steps, two epochs
    assert begin["started"][0] < (begin["scratch"][0] + ended) / 2, (begin, ended)
    assert begin["started"][1] > 1.5 * begin["scratch"][1], (begin, ended)


def test_a_bad_file_on_the_command_line(run_here, tmp_path):
    (tmp_path / "resnet18.safetensors").write_bytes(pack(*header_and_data(published_arrays.resnet(18)))[:-1000])
    for name, says in (("resnet18.safetensors", "damaged"), ("resnet81.safetensors", "did you mean")):
        workdir = tmp_path / "run"
        done = run_here(
            "--config=experiments/baseline.py:smoke", f"--workdir={workdir}", f"--config.init_from={tmp_path / name}"
        )
        assert done.returncode == 2
        (line,) = done.stdout.splitlines()
        assert line.startswith("error: config.init_from: ")
        assert says in line
        assert not workdir.exists()


# What the published files of each method's parts fill, at the method's smallest size -> what stays at init.
FILLED = {
    "acnn": ({"vgg": published_arrays.vgg(norm=False, width=4)}, {"vgg", "gg_unit"}),
    "baseline": ({"resnet": published_arrays.resnet(18)}, {"trunk"}),
    "compact": ({}, set()),
    "compound": ({"resnet": published_arrays.resnet(18)}, {"trunk"}),
    "fan": ({"resnet": published_arrays.resnet(18)}, {"trunk"}),
    "fdrl": ({"resnet": published_arrays.resnet(18)}, {"trunk"}),
    "geometry": ({}, set()),
    "geometry_sequences": ({}, set()),
    "psr": (
        {"vgg": published_arrays.vgg(width=4), "edsr": published_arrays.edsr(1, 4)},
        {"low_1", "low_2", "low_3", "high", "sr_2"},
    ),
    "psr_sr": ({"edsr": published_arrays.edsr(1, 4)}, {"sr_2"}),
    "rul": ({"resnet": published_arrays.resnet(18)}, {"trunk"}),
    "word2vec": ({"resnet": published_arrays.resnet(18)}, {"trunk"}),
}


def small_variables(method):
    """Shapes of the parameters and statistics of a method's model, narrow."""
    build = methods.load(method).model
    known = {field.name for field in dataclasses.fields(build)}
    width = 4 if {"vgg", "edsr_x2"} & set(methods.load(method).published.values()) else 8
    fields = {"width": width, "sr_blocks": 1, "sr_width": 4, "blocks": 1}
    model = build(num_classes=5, **{k: v for k, v in fields.items() if k in known})
    if "class_vectors" in known:
        model = model.clone(class_vectors=tuple(map(tuple, np.eye(5, 9).tolist())))
    if "table" in known:
        model = model.clone(table=tuple(map(tuple, np.eye(5, 6).tolist())))
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    points = (3, 68) if methods.load(method).takes == "frames" else (68,) if methods.load(method).fit else (24,)
    batch = {
        "image": images,
        "points": jax.ShapeDtypeStruct((2, *points, 2), jnp.float32),
        "frames": jax.ShapeDtypeStruct((2, 3, 64, 64, 3), jnp.float32),
        "frame_mask": jax.ShapeDtypeStruct((2, 3), jnp.bool_),
    }
    variables = jax.eval_shape(lambda b: model.init(jax.random.key(0), b, train=False), batch)
    kept = {name: tree for name, tree in variables.items() if name in ("params", "batch_stats")}
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(kept, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


@pytest.mark.parametrize("method", methods.names())
def test_the_published_weights_of_every_method(method):
    """The table of each method names parts that exist, and the published files fill them to the last weight."""
    files, parts = FILLED[method]  # add a new method to the table above
    shapes = small_variables(method)
    filled = set()
    for name, arrays in files.items():
        found = match(WeightFile(name, "PyTorch", "0", arrays), shapes, methods.load(method).published)
        filled |= set(found.values)
        assert all("normalization" in reason for reason in found.kept.values())
    assert {path.split("/")[1] for path in filled} == parts
    for part in methods.load(method).published:
        inside = {path for path in shapes if path.startswith(f"params/{part}/")}
        assert inside <= filled, part
