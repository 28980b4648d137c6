"""EAC, VAC and NLA: class-activation maps, what the terms are of views that agree, and where gradients go."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax import methods
from fer_jax.methods import baseline, fdrl
from fer_jax.methods.class_maps import with_class_maps
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.nn.convolution import Conv
from fer_jax.nn.normalization import BatchNorm

CLASSES, CLOCK = 5, Clock(jnp.int32(0), jnp.float32(0.0))


class Block(nn.Module):
    """[B, S, S, 3] -> [B, S/2, S/2, 6]."""

    @nn.compact
    def __call__(self, x, *, train):
        return nn.relu(BatchNorm()(Conv(6, (3, 3), 2)(x), train=train))


class Trunk(nn.Module):
    """A map in a module of its own, as in a ResNet, and its mean."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        last = Block(name="block")(x, train=train)
        return jnp.mean(last, axis=(1, 2)), {"last": last}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, 4)
    return {
        "image": jnp.asarray(rng.normal(size=(4, 12, 12, 3)), jnp.float32),
        "target": jax.nn.one_hot(label, CLASSES),
        "mask": jnp.ones(4, bool),
    }


def trained(model, variables, batch):
    """Outputs of a view while training."""
    (logits, aux), _ = model.apply(variables, batch, train=True, mutable=["batch_stats", "centers"])
    return Output(logits, aux)


def mirror_of(batch):
    return batch | {"image": batch["image"][:, :, ::-1]}


@pytest.fixture(scope="module")
def model_and_variables(batch):
    model = with_class_maps(baseline.Model)(num_classes=CLASSES, backbone=Trunk)
    return model, jax.jit(lambda: model.init(jax.random.key(0), batch, train=True))()


def test_the_mean_of_a_class_map_is_the_logit_without_its_bias(batch, model_and_variables):
    model, variables = model_and_variables
    logits, aux = trained(model, variables, batch)
    maps = aux["class_maps"]
    assert maps.shape == (4, 6, 6, CLASSES)
    np.testing.assert_allclose(
        maps.mean((1, 2)) + variables["params"]["classifier"]["bias"], logits, rtol=1e-4, atol=1e-4
    )
    kernel = variables["params"]["classifier"]["kernel"]
    np.testing.assert_allclose(maps, aux["maps"]["last"] @ kernel, rtol=1e-4, atol=1e-5)  # CAM as in the paper
    assert "class_maps" not in model.apply(variables, batch, train=False)[1]


def test_behind_several_layers_the_maps_are_those_of_the_gradient(batch):
    """FDRL: the logits come from products and distances of the mean of the map."""
    fields = dict(num_classes=CLASSES, num_features=3, feature_dim=4, backbone=Trunk)
    model, plain = with_class_maps(fdrl.Model)(**fields), fdrl.Model(**fields)
    variables = plain.init(jax.random.key(0), batch, train=True)
    output = trained(model, variables, batch)
    np.testing.assert_array_equal(output.logits, trained(plain, variables, batch).logits)

    def logit(x):
        head = plain.clone(backbone=lambda **_: lambda *_, train: (x, {}))
        return head.apply(variables, batch, train=False)[0][:, 2].sum()

    slope = jax.grad(logit)(output.aux["features"])  # of the mean of the map: the same at each place
    expected = jnp.sum(slope[:, None, None] * output.aux["maps"]["last"], axis=-1)
    np.testing.assert_allclose(output.aux["class_maps"][..., 2], expected, rtol=1e-4, atol=1e-5)


def strategy_loss(name, **options):
    return load(name).apply(methods.load("baseline"), **options)


def test_eac_is_zero_for_maps_that_mirror_each_other_and_adds_to_the_cross_entropy(batch):
    method = strategy_loss("eac")
    maps = jax.random.normal(jax.random.key(0), (4, 6, 6, CLASSES))
    logits = jax.random.normal(jax.random.key(1), (4, CLASSES))
    image, mirror = Output(logits, {"class_maps": maps}), Output(logits, {"class_maps": maps[:, :, ::-1]})
    terms = method.loss((image, mirror), batch, CLOCK)
    np.testing.assert_array_equal(terms["attention"], np.zeros(4))
    same_way = method.loss((image, image), batch, CLOCK)
    np.testing.assert_allclose(same_way["attention"], ((maps - maps[:, :, ::-1]) ** 2).mean((1, 2, 3)), rtol=1e-6)
    plain = baseline.loss((image,), batch, CLOCK)["cross_entropy"]
    np.testing.assert_array_equal(same_way["cross_entropy"], plain)
    assert method.weights == {"cross_entropy": 1.0, "attention": 5.0}
    other = Output(-logits, {"class_maps": maps})
    both = strategy_loss("eac", balanced=True).loss((image, other), batch, CLOCK)["cross_entropy"]
    np.testing.assert_allclose(both, (plain + baseline.loss((other,), batch, CLOCK)["cross_entropy"]) / 2, rtol=1e-6)


def gradient(method, term, model, variables, batch, inputs):
    def total(params):
        outputs = tuple(trained(model, variables | {"params": params}, view) for view in inputs)
        return jnp.mean(method.loss(outputs, batch, CLOCK)[term])

    return jax.jit(jax.grad(total))(variables["params"])


def test_the_consistency_trains_the_trunk_by_both_views_and_never_the_classifier(batch, model_and_variables):
    method, views = strategy_loss("eac"), (batch, mirror_of(batch))
    grads = gradient(method, "attention", *model_and_variables, batch, views)
    for leaf in jax.tree.leaves(grads["classifier"]):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
    assert np.abs(grads["trunk"]["block"]["Conv_0"]["kernel"]).max() > 1e-6

    def from_images(image, mirror):
        outputs = tuple(trained(*model_and_variables, batch | {"image": x}) for x in (image, mirror))
        return jnp.sum(method.loss(outputs, batch, CLOCK)["attention"])

    for slope in jax.jit(jax.grad(from_images, argnums=(0, 1)))(*(view["image"] for view in views)):
        assert np.abs(slope).max() > 1e-6


def test_with_lambda_zero_a_step_is_that_of_the_baseline(batch, model_and_variables):
    """The parameters move alike; the second view moves the running statistics once more."""
    model, variables = model_and_variables
    method = strategy_loss("eac", weight=0.0)
    plain_model = baseline.Model(num_classes=CLASSES, backbone=Trunk)

    def total(params, views, method, model, weights):
        outputs = tuple(trained(model, variables | {"params": params}, view) for view in views)
        terms = method.loss(outputs, batch, CLOCK)
        return sum((weights[name] * jnp.mean(term) for name, term in terms.items()), start=jnp.zeros(()))

    with_pair = jax.grad(total)(variables["params"], (batch, mirror_of(batch)), method, model, method.weights)
    alone = jax.grad(total)(variables["params"], (batch,), baseline.METHOD, plain_model, {"cross_entropy": 1.0})
    jax.tree.map(np.testing.assert_array_equal, with_pair, alone)
