"""The training program as it is for a GPU and a TPU, read on a machine that has neither; and what a run does with it.

The programs are written, not compiled: StableHLO is what XLA is given, and says what is computed in which type, what
lives on the device, and that nothing asks the host for anything on the way.
"""

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fer_jax.nn.convolution import Conv
from fer_jax.training import loop
from fer_jax.training.log import read_lines
from fer_jax.training.runner import StepRunner, training_program
from fer_jax.training.setup import _evenly, make_setup, make_task

STEPS = 3
TWO_AT_ONCE = {"max_steps": 12, "steps_per_dispatch": 2, "ema_decay": 0.9}
METHODS = ("baseline", "fdrl", "acnn", "psr", "word2vec", "fan", "fer2013_fast")
# Convolutions that look at what no parameter stands before: they have no gradient to their input. ACNN normalises the
# image first; of PSR's branches the one that the STN's parameters stand before is not among them.
FIRST = {"acnn": 0, "psr": 3}


def accelerated(config):
    """The config with what an accelerator would choose by itself, and the recipe of FER-2013's preset."""
    config.augmentation.train = ("crop:59", "shift:4", "rotate:10", "flip", "erase:0.5")
    config.train.dtype = "bfloat16"
    config.train.steps_per_dispatch = STEPS
    config.train.ema_decay = 0.999
    config.optimizer.name = "sgd"
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decoupled = False
    config.optimizer.clip_norm = 5.0
    return config


@pytest.fixture(scope="module")
def written():
    """The programs by method, each traced once: (what was traced, how many convolutions the network has)."""
    return {}


@pytest.fixture(params=METHODS)
def program(request, tiny, written, monkeypatch):
    if request.param not in written:
        setup = make_setup(accelerated(tiny(request.param)))
        feed = StepRunner(setup, 0)
        taken = [feed.next_batch() for _ in range(STEPS)]
        indices = jax.tree.map(lambda *steps: np.stack(steps), *taken)
        convolutions, original = [], Conv.__call__

        def counted(self, x):
            convolutions.append(not self.as_product)
            return original(self, x)

        state = setup.abstract_state()
        with monkeypatch.context() as patch:
            patch.setattr(Conv, "__call__", counted)
            traced = training_program(setup, "cuda").trace(state, feed._seed, feed._data, indices)
        written[request.param] = (request.param, traced, (state, feed._data, indices), sum(convolutions))
    return written[request.param]


@functools.cache
def lowered(traced, platform):
    return traced.lower(lowering_platforms=(platform,)).as_text()


def operations(text, name):
    """The lines of one operation, without their regions."""
    return [line for line in text.splitlines() if f"stablehlo.{name}" in line]


def types(line):
    """The element types of the operands and results in a line."""
    return re.findall(r"tensor<(?:\d+x)*(\w+)>", line[line.rindex(" : ") :])


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_program_of_an_accelerator(program, platform):
    method, traced, (state, data, indices), convolutions = program
    text = lowered(traced, platform)
    main = next(line for line in text.splitlines() if "func.func public @main" in line)

    # One loop over the steps, as long as the steps are many, and nothing that leaves the device on the way.
    assert len(operations(text, "while")) == 1
    condition = re.search(r"stablehlo\.while.*?cond \{(.*?)\} do \{", text, re.DOTALL)[1]
    assert f"dense<{STEPS}> : tensor<i32>" in condition
    assert "compare LT" in " ".join(condition.split())
    for name in ("custom_call", "infeed", "outfeed", "send", "recv", "case", "if"):
        assert not [line for line in operations(text, name) if "@Sharding" not in line], name
    assert "callback" not in text

    # Convolutions: as many as the network has, forwards and to both operands, all of bfloat16; none taken apart.
    seen = operations(text, "convolution")
    assert convolutions > 4
    assert len(seen) == 3 * convolutions - FIRST.get(method, 1)
    assert {kind for line in seen for kind in types(line)} == {"bf16"}

    # Float32 where it matters. A product of float32 is asked for in full, or a TPU would take it in bfloat16.
    assert "f64" not in text
    for line in operations(text, "dot_general"):
        assert set(types(line)) == {"bf16"} or "precision = [HIGHEST, HIGHEST]" in line, line
    for line in operations(text, "reduce("):  # sums over the batch or the map; a maximum has nothing to round
        assert "bf16" not in types(line) or "maximum" in line, line
    outputs = traced.jaxpr.out_avals
    metrics = outputs[len(jax.tree.leaves(state)) :]
    assert {x.dtype for x in metrics} == {np.dtype("float32")}
    assert {x.shape for x in metrics} == {(STEPS,)}
    assert {x.dtype for x in jax.tree.leaves((state.params, state.average, state.opt_state))} <= {
        np.dtype("float32"), np.dtype("int32"), np.dtype("bool"),
    }  # fmt: skip

    # What comes out can go in again: the same shapes and types, so nothing is compiled twice.
    leaves = jax.tree.leaves(state)
    for before, after, leaf in zip(traced.jaxpr.in_avals, outputs, leaves, strict=False):
        assert (before.shape, before.dtype, before.weak_type) == (after.shape, after.dtype, after.weak_type)
        assert (leaf.shape, leaf.dtype) == (after.shape, after.dtype)

    # The state gives its memory to the new one. Beside it come the seed, the fields of the data that are read, pictures
    # as they are stored, and the indices, which are all that is new with every dispatch.
    given = re.split(r"%arg\d+: ", main[: main.index(") -> (")])[1:]
    places = len(jax.tree.leaves(indices))
    assert len(leaves) + places < len(given) <= len(leaves) + 1 + len(jax.tree.leaves(data)) + places
    for number, argument in enumerate(given):
        donated = "tf.aliasing_output" in argument or "jax.buffer_donor" in argument
        assert donated == (number < len(leaves))
    pictures = data["frames"] if "frames" in data else data["image"]
    stored = "x".join(map(str, pictures.shape))
    assert f"tensor<{stored}xui8>" in main
    assert not re.search(rf"tensor<{stored}x(?!ui8>)", text)
    assert all(re.match(rf"tensor<{STEPS}x16(x\d+)?xi32>", argument) for argument in given[-places:])
    gathers = [line for line in operations(text, "gather") if f"tensor<{stored}xui8>" in line]
    assert len(gathers) == 1


def test_the_program_of_a_cpu_has_no_loop_and_other_forms(tiny):
    """The same setup, traced for the device that it is on."""
    setup = make_setup(accelerated(tiny("baseline")))
    feed = StepRunner(setup, 0)
    taken = np.stack([feed.next_batch() for _ in range(2)])
    text = str(training_program(setup).trace(setup.abstract_state(), feed._seed, feed._data, taken).jaxpr)
    assert "scan[" not in text
    assert "select_and_scatter" not in text
    assert 0 < text.count("conv_general_dilated[") < 2 * 17  # of two steps; small maps are taken apart


def test_what_an_accelerator_chooses_by_itself(tiny):
    setup = make_setup(tiny("baseline"))
    assert make_task(setup.config, setup.train, setup.model_fields, accelerated=True).model.dtype is jnp.bfloat16
    assert setup.task.model.dtype is jnp.float32
    assert [_evenly(steps) for steps in (1, 50, 51, 224, 1000)] == [1, 50, 25, 44, 50]


def test_a_donated_state_gives_its_memory_away(tiny):
    """On the CPU's program: the new state lies where the old one lay, and a dispatch is one call for all its steps."""
    setup = make_setup(tiny("baseline", **TWO_AT_ONCE))
    feed, state = StepRunner(setup, 0), setup.init()
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    indices = np.stack([feed.next_batch() for _ in range(2)])
    (program,) = feed._programs.values()
    analysis = program.lower(state, feed._seed, feed._data, indices).compile().memory_analysis()
    assert analysis.alias_size_in_bytes >= held
    for step in (2, 4):
        before = jax.tree.leaves(state)
        state, metrics, made = feed.run(state, 10)
        assert made == 2
        assert all(leaf.is_deleted() for leaf in before)
        assert int(state.step) == step
        assert metrics["loss/total"].shape == (2,)
    assert feed.programs() == 1


def test_bfloat16_follows_float32(tiny):
    """The same run in both types.

    A number of bfloat16 is off by up to 2^-9 of itself. Through the six convolutions of the network, each with a
    normalisation that keeps errors in proportion, that adds up to sqrt(6) * 2^-9 = 0.5 % in the features; a loss near
    log 7, the mean of 16 examples, moves by less. Three steps of a small rate add little to it.
    """
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = tiny("baseline", dtype=dtype, ema_decay=0.9)
        config.optimizer.learning_rate = 1e-4
        config.schedule.name = "constant"
        setup = make_setup(config)
        feed, state = StepRunner(setup, 0), setup.init()
        losses[dtype] = []
        for _ in range(4):
            state, metrics, _ = feed.run(state, 1)
            losses[dtype].append(float(metrics["loss/total"][0]))
        kept = jax.tree.leaves((state.params, state.collections, state.opt_state, state.average))
        assert {leaf.dtype for leaf in kept} == {np.dtype("float32"), np.dtype("int32")}
        assert np.isfinite(jax.tree.leaves(jax.tree.map(np.sum, kept))).all()
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.01)


class Watched:
    """A metric that remembers when it is read."""

    def __init__(self, value, number, reads, issued):
        self.value, self._number, self._reads, self._issued = value, number, reads, issued

    def __array__(self, *_, **__):
        self._reads.append((self._number, len(self._issued)))
        return np.asarray(self.value)


def test_the_host_reads_a_dispatch_after_it_has_begun_the_next(tiny, tmp_path, monkeypatch):
    """Never later than that either: a signal and a value that is not finite are seen within two dispatches."""
    original, issued, reads, copied = StepRunner.run, [], [], []

    def watched(self, state, most):
        state, metrics, made = original(self, state, most)
        issued.append(made)
        return state, {k: Watched(v, len(issued), reads, issued) for k, v in metrics.items()}, made

    array = type(jnp.zeros(1))
    begin = array.copy_to_host_async
    monkeypatch.setattr(StepRunner, "run", watched)
    monkeypatch.setattr(array, "copy_to_host_async", lambda self: (copied.append(self.shape), begin(self))[1])
    config = tiny("baseline", log_every_steps=3, eval_every_epochs=6 / (222 / 16), **TWO_AT_ONCE)
    loop.train(config, epath.Path(tmp_path / "run"))
    assert issued == [2] * 6
    when = dict(reads)
    # Evaluations, after 6 and 12 steps, wait for everything; else the next dispatch is under way.
    assert when == {1: 2, 2: 3, 3: 3, 4: 5, 5: 6, 6: 6}
    assert len([shape for shape in copied if shape == (2,)]) == len(reads)
    lines = read_lines(epath.Path(tmp_path / "run") / "metrics.jsonl")
    order = [(line["kind"], line["step"]) for line in lines]
    assert order == [("train", 3), ("train", 6), ("validation", 6), ("train", 9), ("train", 12), ("validation", 12)]


class Stop(Exception):
    pass


def test_nothing_compiles_once_a_run_is_under_way(tiny, tmp_path, monkeypatch, caplog):
    """Not in a step, an evaluation, a copy of the best model or a save, and nothing the second time after a stop."""
    original, calls, compiled = StepRunner.run, [], []

    def names():
        return [line for line in map(logging.LogRecord.getMessage, caplog.records) if "Finished XLA compil" in line]

    def watched(self, state, most):
        calls.append(int(state.step))
        compiled.append(len(names()))
        if len(calls) == 6:
            raise Stop
        return original(self, state, most)

    monkeypatch.setattr(StepRunner, "run", watched)
    config, workdir = tiny("baseline", max_steps=9, log_every_steps=1, eval_every_epochs=2 / (222 / 16)), tmp_path / "a"
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        with pytest.raises(Stop):
            loop.train(config, epath.Path(workdir))
        assert calls == [0, 1, 2, 3, 4, 5]
        assert compiled[1] > compiled[0]  # the step itself: what is counted is what happens
        assert compiled[2] - compiled[1] <= 2, names()[compiled[1] :]  # the evaluation, after two steps
        assert compiled[5] == compiled[3], names()[compiled[3] :]
        loop.train(config, epath.Path(workdir))
        assert calls[6:] == [4, 5, 6, 7, 8]
        assert compiled[10] == compiled[9] == compiled[8], names()[compiled[8] :]
