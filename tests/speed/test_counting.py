"""The work of a step, against numbers by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks import counting, flax_resnet
from fer_jax.nn.convolution import conv_cpu, conv_xla, same_padding
from fer_jax.nn.lowering import for_cpu


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


def test_a_product_counts_a_multiply_add_twice():
    found = counting.work(jnp.matmul, shape(3, 5), shape(5, 7))
    assert found == counting.Work(2 * 3 * 5 * 7, 2 * 3 * 5 * 7)


def test_a_batched_product():
    found = counting.work(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), shape(4, 3, 5), shape(4, 5, 7))
    assert found.operations == 2 * 4 * 3 * 5 * 7


def test_a_convolution_with_and_without_its_padding():
    conv = functools.partial(conv_xla, stride=1, padding=((1, 1), (1, 1)))
    found = counting.work(conv, shape(2, 4, 4, 3), shape(3, 3, 3, 5))
    assert found.padded == 2 * (2 * 4 * 4) * 9 * 3 * 5
    # Along an axis of four, three cells meet the image but for the first and the last output: 2 + 3 + 3 + 2.
    assert found.operations == 2 * 2 * (10 * 10) * 3 * 5


def test_a_grouped_convolution():
    def conv(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=names, feature_group_count=4)

    found = counting.work(conv, shape(1, 5, 5, 8), shape(3, 3, 2, 12))
    assert found.operations == found.padded == 2 * 9 * 9 * 2 * 12


@pytest.mark.parametrize(("side", "kernel", "stride"), [(9, 3, 2), (12, 3, 1), (3, 3, 1), (6, 1, 2), (10, 7, 2)])
def test_a_convolution_counts_the_same_however_it_is_written(side, kernel, stride):
    """The gradients of a strided convolution meet holes; the form for CPUs is a sum of products."""
    x, k = shape(2, side, side, 32), shape(kernel, kernel, 32, 8)

    def gradients(conv):
        def total(x, k):
            return jnp.sum(conv(x, k, stride, same_padding((kernel, kernel))) ** 2)

        return counting.work(jax.value_and_grad(total, argnums=(0, 1)), x, k).operations

    assert gradients(conv_cpu) == gradients(conv_xla) > 0


def test_loops_count_every_turn_and_branches_the_dearest():
    def looped(a):
        return jax.lax.scan(lambda x, _: (x @ x, None), a, None, length=5)[0]

    def branched(a, flag):
        return jax.lax.cond(flag, lambda x: x @ x @ x, lambda x: x, a)

    assert counting.work(looped, shape(4, 4)).operations == 5 * 2 * 64
    assert counting.work(branched, shape(4, 4), shape(dtype=bool)).operations == 2 * 2 * 64


def test_what_cannot_be_looked_into_is_named():
    def foreign(x):
        return jax.pure_callback(lambda x: x, shape(4), x) * 2.0

    assert counting.work(foreign, shape(4)).opaque == ("pure_callback",)


def test_what_nobody_reads_does_not_count():
    assert counting.work(lambda a: (a @ a, a + 1.0)[1], shape(4, 4)).operations == 0


@pytest.fixture(scope="module")
def resnet18():
    """The step of ResNet-18 at 224 pixels as accelerators have it, its loss, its variables and an image."""
    model, image = flax_resnet.Ours(), shape(1, 224, 224, 3)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(image.shape), train=False))

    def loss(params, image):
        outputs = model.apply({**variables_of(params)}, image, train=True, mutable=["batch_stats"])
        return jnp.sum(outputs[0])

    def variables_of(params):
        stats = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), variables["batch_stats"])
        return {"params": params, "batch_stats": stats}

    return model, loss, variables, image


def test_resnet18_forward(resnet18):
    """1.814 billion multiply-adds are published for 1,000 classes at 224 pixels; here there are seven."""
    model, _, variables, image = resnet18
    with counting.as_on_accelerators():
        found = counting.work(functools.partial(model.apply, train=False), variables, image)
    assert found.padded / 2 == pytest.approx(1.8141e9 - 512 * 993, rel=1e-4)
    assert 0.9 * found.padded < found.operations < found.padded


def test_training_resnet18_is_three_times_the_forward_pass_without_the_images_gradient(resnet18):
    model, loss, variables, image = resnet18
    stem = 2 * 112 * 112 * 49 * 3 * 64
    with counting.as_on_accelerators():
        forward = counting.work(functools.partial(model.apply, train=False), variables, image)
        training = counting.work(jax.grad(loss), variables["params"], image)
    assert training.padded == pytest.approx(3 * forward.padded - stem, rel=2e-3)


def test_what_is_kept_for_the_backward_pass():
    def loss(w):  # x is given; tanh keeps its output, the product keeps x, which is a constant
        return jnp.sum(jnp.tanh(jnp.ones((6, 4)) * 2.0 @ w))

    kept = counting.kept_bytes(loss, shape(4, 5))
    assert 6 * 5 * 4 <= kept <= 2 * 6 * 5 * 4 + 6 * 4 * 4


def test_forms_for_cpus_come_back_after_counting():
    with counting.as_on_accelerators():
        assert not for_cpu()
    assert for_cpu()
