"""Predictions in two programs: the same numbers, the weights' part once per set of weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.engine.mesh import make_mesh, replicated, sharded
from fer_jax.engine.prediction import Prediction, split
from fer_jax.evaluation.task import eval_step
from fer_jax.nn.lowering import differentiated
from fer_jax.nn.resnet import ResNet10
from fer_jax.training.setup import make_setup


def predicts(function, **options):
    mesh = make_mesh("auto", 1)
    places = {"in_shardings": (replicated(mesh), sharded(mesh)), "out_shardings": replicated(mesh)}
    return Prediction(mesh, function, **places, **options)


@pytest.mark.parametrize("method", ["fdrl", "acnn", "psr"])  # a trunk, kernels under vmap, several branches
def test_a_method_predicts_what_it_does_as_one_program(tiny, method):
    setup = make_setup(tiny(method))
    variables = setup.init().variables()
    batch = {name: jnp.asarray(values[:8]) for name, values in setup.train.arrays.items()} | {"mask": jnp.ones(8, bool)}
    step = functools.partial(eval_step, setup.task)
    seen = predicts(step)(variables, batch)
    for name, values in jax.jit(step)(variables, batch).items():
        np.testing.assert_allclose(seen[name], values, rtol=1e-4, atol=1e-5)


def test_winograds_kernels_are_written_once():
    """Of a network at a size that takes the form: what is left for each batch touches no kernel of [3, 3, C, F]."""
    network, images = ResNet10(width=64), jnp.ones((2, 48, 48, 3))
    weights = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), images)
    prediction = predicts(lambda weights, images: network.apply(weights, images, train=False)[0])
    prepared, predict = prediction.prepared(weights, images)
    kernel = weights["params"]["layer1_0"]["conv1"]["kernel"].shape
    assert kernel == (3, 3, 64, 64)
    assert kernel not in [array.shape for array in prepared]
    assert [array.shape for array in prepared].count(kernel[2:]) == 2 * 16  # the cells of layer1's two convolutions
    assert "3x3x64x64xf32" not in predict.lower(prepared, images).as_text()


def test_new_weights_are_prepared_anew_and_others_are_not():
    calls = []

    def scaled(weights, x):
        calls.append(None)
        return jnp.exp(weights["w"]) * x

    prediction, x = predicts(scaled), jnp.arange(3.0)
    first, second = {"w": jnp.float32(0.0)}, {"w": jnp.log(jnp.float32(2.0))}
    np.testing.assert_allclose(prediction(first, x), x)
    kept = prediction.prepared(first, x)[0]
    assert prediction.prepared(dict(first), x)[0] is kept  # another tree of the same arrays
    np.testing.assert_allclose(prediction(second, x), 2 * x, rtol=1e-6)
    np.testing.assert_allclose(prediction(first, x), x)
    assert len(calls) == 1
    np.testing.assert_allclose(prediction(second, jnp.ones(5)), np.full(5, 2.0), rtol=1e-6)  # traced anew
    assert len(calls) == 2


def test_a_program_is_checked_before_it_runs_and_compiled_once():
    """For each shape of a batch; and what the check compiles is what runs."""
    compiled, checked = [], []

    def listen(name, *_, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    def check(program, arguments):
        checked.append(arguments[-1].shape)
        assert program.lower(*arguments).compile().memory_analysis().output_size_in_bytes == 4 * len(arguments[-1])

    def count(prediction):
        before = len(compiled)
        for size in (3, 5, 3):
            prediction({"w": jnp.float32(0.5)}, np.ones(size, np.float32))
        return len(compiled) - before

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        plain = count(predicts(lambda weights, x: jnp.exp(weights["w"]) * x))
        assert count(predicts(lambda weights, x: jnp.exp(weights["w"]) * x, check=check)) == plain > 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert checked == [(3,), (5,)]


def test_a_program_that_its_check_refuses_does_not_run():
    def check(*_):
        raise MemoryError

    prediction = predicts(lambda weights, x: weights * x, check=check)
    for _ in range(2):  # nor when it is asked again
        with pytest.raises(MemoryError):
            prediction(jnp.float32(2.0), jnp.ones(3))


def test_the_cut_keeps_large_copies_and_constants_where_they_are_used():
    def function(weights, x):
        small = jnp.sin(weights)
        return jnp.broadcast_to(small, x.shape) * x + jnp.arange(3.0), small

    weights, x = jnp.ones(3), jnp.ones((1000, 3))
    early, late = split(jax.make_jaxpr(function)(weights, x), 1)
    prepared = early(weights)
    assert [value.shape for value in prepared] == [(3,)]
    for got, wanted in zip(late(*prepared, x), function(weights, x), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_only_predictions_are_written_without_their_gradients():
    seen = []

    def noted(weights, x):
        seen.append(differentiated())
        return weights * x

    predicts(noted)(jnp.ones(()), jnp.ones(2))
    jax.jit(noted)(jnp.ones(()), jnp.ones(2))
    assert seen == [False, True]
