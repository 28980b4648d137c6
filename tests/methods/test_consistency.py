"""EAC, VAC and NLA: class-activation maps, what the terms are of views that agree, and where gradients go."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax import methods
from fer_jax.data.augment import geometry
from fer_jax.methods import baseline, fdrl
from fer_jax.methods.class_maps import with_class_maps
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.methods.strategies import nla, vac
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
    assert method.weights == {**baseline.METHOD.weights, "attention": 5.0}
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


@pytest.mark.parametrize(
    ("name", "options"), [("eac", {"weight": 0.0}), ("nla", dict(classification=1.0, noise_aware=0.0, consistency=0.0))]
)
def test_with_weights_of_zero_a_step_is_that_of_the_baseline(name, options, batch, model_and_variables):
    """The parameters move alike; the second view moves the running statistics once more."""
    model, variables = model_and_variables
    method = strategy_loss(name, **options)
    plain_model = baseline.Model(num_classes=CLASSES, backbone=Trunk)

    def total(params, views, method, model, weights):
        outputs = tuple(trained(model, variables | {"params": params}, view) for view in views)
        terms = method.loss(outputs, batch, CLOCK)
        return sum((weights[name] * jnp.mean(term) for name, term in terms.items()), start=jnp.zeros(()))

    with_pair = jax.grad(total)(variables["params"], (batch, mirror_of(batch)), method, model, method.weights)
    alone = jax.grad(total)(variables["params"], (batch,), baseline.METHOD, plain_model, {"cross_entropy": 1.0})
    jax.tree.map(np.testing.assert_array_equal, with_pair, alone)


def test_vac_compares_maps_of_two_sizes_on_their_common_grid():
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.normal(size=(2, 7, 7, 3)), jnp.float32)
    large = vac.enlarged(maps, 42)
    np.testing.assert_array_equal(large[:, ::6, ::6], maps)
    assert np.ptp(np.asarray(large).reshape(2, 7, 6, 7, 6, 3), axis=(2, 4)).max() == 0
    constant = jnp.full((2, 7, 7, 3), 2.0)
    np.testing.assert_array_equal(vac.scaled_distance(constant, constant[:, :6, :6]), np.zeros(2))
    blob = jnp.zeros((1, 7, 7, 1)).at[0, 2, 2].set(1.0)
    near, far = (jnp.zeros((1, 6, 6, 1)).at[0, at, at].set(1.0) for at in (2, 4))
    assert 0 < float(vac.scaled_distance(blob, near)[0]) < float(vac.scaled_distance(blob, far)[0])


def test_vac_turns_maps_back_and_leaves_out_what_came_from_outside():
    row, column = jnp.meshgrid(jnp.arange(15.0), jnp.arange(15.0), indexing="ij")
    smooth = jnp.exp(-((row - 4) ** 2 + (column - 9) ** 2) / 8)[..., None]
    degrees = jnp.array([0.0, 9.0, -9.0])
    turned = jax.vmap(lambda angle: geometry.sample(smooth, geometry.turn(angle, 15), 15))(degrees)
    maps = jnp.stack([smooth] * 3)
    right, wrong = vac.turned_distance(maps, turned, degrees), vac.turned_distance(maps, turned, -degrees)
    assert right[0] == 0
    assert (right[1:] < 0.1 * wrong[1:]).all()
    beyond = maps.at[:, 0, 0].add(5.0)  # what lies in this corner is outside of a picture that is turned
    np.testing.assert_array_equal(vac.turned_distance(beyond, turned, degrees)[1:], right[1:])


def test_vac_does_not_depend_on_the_size_of_the_activations(batch, model_and_variables):
    maps = jax.random.normal(jax.random.key(0), (4, 6, 6, CLASSES))
    np.testing.assert_allclose(vac.standardized(3 * maps), vac.standardized(maps), rtol=1e-5)
    np.testing.assert_allclose(vac.standardized(maps).std((1, 2, 3)), np.ones(4), rtol=1e-5)
    slope = jax.grad(lambda m: vac.standardized(m).sum())(jnp.ones((1, 2, 2, 1)))
    assert jnp.isfinite(slope).all()


def test_vac_classifies_all_views_and_never_trains_the_classifier_by_consistency(batch, model_and_variables):
    method = strategy_loss("vac", rotate=10.0)
    assert [view.mirror for view in method.views] == [False, True, False, True, False]
    small = batch | {"image": batch["image"][:, 1:11, 1:11]}
    views = (batch, mirror_of(batch), small, mirror_of(small), batch)
    outputs = tuple(trained(*model_and_variables, view) for view in views)
    turn = {"turn": jnp.zeros(4)}
    terms = method.loss(outputs, batch | turn, CLOCK)
    each = [baseline.loss((output,), batch, CLOCK)["cross_entropy"] for output in outputs]
    np.testing.assert_allclose(terms["cross_entropy"], np.mean(each, axis=0), rtol=1e-6)
    np.testing.assert_allclose(terms["attention_rotate"], np.zeros(4), atol=1e-10)
    assert set(terms) | set(baseline.METHOD.weights) == set(method.weights)
    for term in ("attention_flip", "attention_scale"):
        grads = gradient(method, term, *model_and_variables, batch | turn, views)
        for leaf in jax.tree.leaves(grads["classifier"]):
            np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
        assert np.abs(grads["trunk"]["block"]["Conv_0"]["kernel"]).max() > 1e-6


def nla_weight(p_label, p_nearest, share, weighting="moving"):
    p = jnp.array([[p_label, p_nearest, 1 - p_label - p_nearest]])
    return float(nla.weight(p, jnp.array([[1.0, 0.0, 0.0]]), jnp.float32(share), weighting)[0])


def test_nla_weighs_by_a_gaussian_that_moves():
    def density(x, mean, variance, covariance):
        sigma = np.array([[variance, covariance], [covariance, variance]])
        d = np.array(x) - mean
        return np.exp(-d @ np.linalg.inv(sigma) @ d / 2) / (2 * np.pi * np.sqrt(np.linalg.det(sigma)))

    x = (0.6, 0.25)
    assert nla_weight(*x, 0.0) == pytest.approx(density(x, (0.5, 0.5), 0.8, 0.0), rel=1e-5)
    assert nla_weight(*x, 1.0) == pytest.approx(density(x, (0.30, 0.15), 0.85, 0.80), rel=1e-5)
    assert nla_weight(*x, 1.0, "released") == pytest.approx(density(x, (0.5, 0.5), 0.8, -0.5), rel=1e-5)
    wrong = (0.2, 0.7)
    assert nla_weight(*wrong, 1.0, "released") == pytest.approx(density(wrong, (0.30, 0.15), 0.85, 0.80), rel=1e-5)
    ambiguous = nla_weight(0.4, 0.3, 1.0)
    assert nla_weight(0.98, 0.01, 1.0) < 0.1 * ambiguous  # easy
    assert nla_weight(0.01, 0.98, 1.0) < 0.1 * ambiguous  # wrong
    assert [float(nla.moved(jnp.float32(t), 4.0)) for t in (0.9, 4.0)] == pytest.approx([0.0, 1 - np.exp(-1)], rel=1e-6)


def test_nla_diverges_from_zero_to_ln_2_and_halves_the_loss_of_the_method(batch):
    logits = jax.random.normal(jax.random.key(0), (4, CLASSES))
    others = jax.random.normal(jax.random.key(1), (4, CLASSES))
    np.testing.assert_allclose(nla.jensen_shannon(logits, logits + 2.0), np.zeros(4), atol=1e-6)
    np.testing.assert_allclose(nla.jensen_shannon(logits, others), nla.jensen_shannon(others, logits), rtol=1e-5)
    apart = 200 * jax.nn.one_hot(jnp.array([0]), 3)
    assert float(nla.jensen_shannon(apart, apart[:, ::-1])[0]) == pytest.approx(np.log(2), rel=1e-5)
    outputs = (Output(logits, {}), Output(others, {}))
    plain = baseline.loss(outputs, batch, CLOCK)["cross_entropy"]
    terms = strategy_loss("nla").loss(outputs, batch, CLOCK)
    np.testing.assert_allclose(terms["cross_entropy"], plain / 2, rtol=1e-6)
    weights = nla.weight(jax.nn.softmax(logits), batch["target"], jnp.float32(0.0), "moving")
    np.testing.assert_allclose(terms["noise_aware"], weights * plain, rtol=1e-5)
