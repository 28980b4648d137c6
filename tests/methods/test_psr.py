"""PSR: the pyramid's shapes, one shared copy of the high part, what learns through which branch, PDLS's algebra."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from planted import terms_of

from fer_jax.errors import UserError
from fer_jax.methods import psr
from fer_jax.methods.losses import cross_entropy
from fer_jax.nn.vgg import VGG, cut

CLASSES, SIDE = 4, 32
SMALL = psr.Model(  # four convolutions of VGG, two of them shared
    num_classes=CLASSES, width=2, sep_pos=7, last="pool2", sr_blocks=1, sr_width=4, hidden=8, dropout=0.0
)
RNG = np.random.default_rng(0)
BATCH = {
    "image": jnp.asarray(RNG.normal(size=(6, SIDE, SIDE, 3)), jnp.float32),
    "target": jax.nn.one_hot(jnp.arange(6) % CLASSES, CLASSES),
    "mask": jnp.ones(6, bool),
}


@pytest.fixture(scope="module")
def variables():
    return jax.jit(lambda: SMALL.init(jax.random.key(0), BATCH, train=True))()


@functools.partial(jax.jit, static_argnames="train")
def forward(variables, batch, train=False):
    (logits, aux), new = SMALL.apply(variables, batch, train=train, mutable=["batch_stats"])
    return logits, aux, new["batch_stats"]


@jax.jit
def gradients(params, statistics, weights):
    """Gradients of the branches' losses, weighted [m], and their sum."""

    def objective(params):
        (_, aux), _ = SMALL.apply(
            {"params": params, "batch_stats": statistics}, BATCH, train=True, mutable=["batch_stats"]
        )
        losses = [jnp.mean(cross_entropy(b, BATCH["target"])) for b in psr.split(aux["branch_logits"])]
        return jnp.sum(jnp.stack(losses) * weights)

    return jax.grad(objective)(params)


def shapes(size, **fields):
    """Variables and outputs of a model as shapes."""
    model = psr.Model(**{"num_classes": 8} | fields)
    batch = {"image": jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)}
    return jax.eval_shape(lambda b: model.init_with_output(jax.random.key(0), b, train=False), batch)


# Check 1: shapes


def test_shapes_of_the_paper():
    model = psr.Model(num_classes=8)
    batch = {"image": jax.ShapeDtypeStruct((2, 100, 100, 3), jnp.float32)}

    def outputs(batch):
        lows = lambda module, _: (module.name or "").startswith("low_")  # noqa: E731
        key = jax.random.key(0)
        return model.init_with_output(key, batch, train=False, mutable=True, capture_intermediates=lows)

    (logits, aux), captured = jax.eval_shape(outputs, batch)
    assert logits.shape == (2, 8)
    assert aux["branch_logits"].shape == (2, 8, 3)
    assert aux["half"].shape == (2, 50, 50, 3)
    assert aux["super_resolved"].shape == aux["aligned"].shape == (2, 100, 100, 3)
    sides = [captured["intermediates"][f"low_{b}"]["__call__"][0].shape for b in (1, 2, 3)]
    assert sides == [(2, 6, 6, 256), (2, 12, 12, 256), (2, 12, 12, 256)]


def test_the_prediction_is_the_mean_of_the_branches_probabilities(variables):
    logits, aux, _ = forward(variables, BATCH)
    p = jax.nn.softmax(aux["branch_logits"], axis=1)
    np.testing.assert_allclose(jax.nn.softmax(logits), p.mean(-1), atol=1e-6)
    np.testing.assert_allclose(jnp.exp(logits).sum(-1), 1, atol=1e-5)  # log-probabilities, not any logits
    per_branch = -jnp.einsum("bcm,bc->bm", jnp.log(p), BATCH["target"])
    np.testing.assert_allclose(terms_of(psr, logits, aux, BATCH)["cross_entropy"], per_branch.mean(-1), rtol=1e-5)


def test_longer_pyramids_and_the_single_scale():
    (_, aux), variables = shapes(64, multiples=(1, 2, 4, 1), width=4, sr_blocks=1, sr_width=4)
    assert aux["half"].shape == (2, 16, 16, 3)  # S / 2^(m-2)
    assert aux["super_resolved"].shape == (2, 32, 32, 3)
    assert {"sr_2", "sr_4", "low_1", "low_4"} < set(variables["params"])
    (_, aux), variables = shapes(64, multiples=(1,), stn=False, width=4)
    assert aux["branch_logits"].shape == (2, 8, 1)
    assert set(variables["params"]) == {"low_1", "high", "head"}


def test_forty_eight_pixels_have_the_maps_of_ninety_six_one_stage_earlier():
    # Section 4: 1x1 after the high part for the reduced image, 3x3 for the others.
    for size, last in ((96, "pool5"), (48, "pool4")):
        for side, expected in ((size // 2, 1), (size, 3)):
            network = VGG(last=last, width=2)
            x = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
            maps, _ = jax.eval_shape(lambda x, n=network: n.init_with_output(jax.random.key(0), x, train=False), x)
            assert maps.shape[1:3] == (expected, expected)
    _, variables = shapes(48, width=4, last="pool4", sr_blocks=1, sr_width=4)
    assert {name[:5] for name in variables["params"]["high"]} == {"conv4", "bn4_1", "bn4_2", "bn4_3"}


@pytest.mark.parametrize("sep_pos", [3, 14, 37])
def test_every_cut_has_the_same_trunk(sep_pos):
    _, variables = shapes(32, multiples=(1,), stn=False, sep_pos=sep_pos)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 15_255_112


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"multiples": (1, 1)}, "give \\(1,\\), \\(1, 2, 1\\), \\(1, 2, 4, 1\\)"),
        ({"multiples": (1, 4, 1)}, "model.multiples"),
        ({"multiples": (1, 4, 2, 1)}, "model.multiples"),
        ({"multiples": (1, 2, 2, 1)}, "model.multiples"),
        ({"multiples": (2, 1)}, "model.multiples"),
        ({"multiples": ()}, "model.multiples"),
        ({"sep_pos": 25}, "cannot be cut at 25"),
        ({"last": "pool6"}, "'pool6' is not a layer"),
        ({"last": "pool3"}, "not a layer of VGG-16 after the cut at 24"),
        ({"multiples": (1, 2, 4, 1), "stn": False}, "a multiple of 4"),
    ],
)
def test_mistakes_in_fields(fields, says):
    with pytest.raises(UserError, match=says):
        shapes(34, **fields)


# Check 2: one shared copy


def test_low_parts_start_alike_and_are_not_shared(variables):
    params = variables["params"]
    assert {f"low_{b}" for b in (1, 2, 3)} | {"high", "head", "stn", "sr_2"} == set(params)
    for b in (2, 3):
        jax.tree.map(np.testing.assert_array_equal, params["low_1"], params[f"low_{b}"])
    kernel = params["low_1"]["conv1_1"]["kernel"]
    assert np.std(kernel) > 0.1  # He, not zeros


def test_there_is_one_shared_part_and_the_optimiser_holds_one():
    params = shapes(96)[1]["params"]

    def kernels(tree, layer):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return [leaf.shape for path, leaf in leaves if layer in str(path) and "kernel" in str(path)]

    state = jax.eval_shape(optax.adam(1e-3).init, params)[0]
    for tree in (params, state.mu, state.nu):
        assert kernels(tree, "conv4_1") == [(3, 3, 256, 512)]
        assert kernels(tree, "conv1_1") == [(3, 3, 3, 64)] * 3


def test_the_shared_part_serves_all_branches_and_a_low_part_its_own(variables):
    before = forward(variables, BATCH)[1]["branch_logits"]

    def moved(part):
        params = variables["params"]
        changed = params | {part: jax.tree.map(lambda x: x + 0.05, params[part])}
        after = forward(variables | {"params": changed}, BATCH)[1]["branch_logits"]
        return np.abs(after - before).max((0, 1)) > 1e-6

    np.testing.assert_array_equal(moved("high"), [True, True, True])
    np.testing.assert_array_equal(moved("head"), [True, True, True])
    np.testing.assert_array_equal(moved("low_2"), [False, True, False])
    np.testing.assert_array_equal(moved("sr_2"), [False, True, False])
    np.testing.assert_array_equal(moved("low_3"), [False, False, True])


def test_without_super_resolution_only_its_branch_changes(variables):
    """Check 4: bicubic interpolation in place of EDSR."""
    params = {name: tree for name, tree in variables["params"].items() if name != "sr_2"}
    plain = SMALL.clone(upsampler="bicubic")
    apply = jax.jit(lambda v: plain.apply(v, BATCH, train=False)[1]["branch_logits"])
    change = np.abs(apply(variables | {"params": params}) - forward(variables, BATCH)[1]["branch_logits"]).max((0, 1))
    np.testing.assert_array_equal(change > 1e-3, [False, True, False])
    np.testing.assert_array_less(change[[0, 2]], 1e-5)


def test_the_gradient_of_the_shared_part_is_the_sum_over_branches(variables):
    whole = gradients(variables["params"], variables["batch_stats"], jnp.ones(3))
    single = [gradients(variables["params"], variables["batch_stats"], jnp.eye(3)[b]) for b in range(3)]
    total = jax.tree.map(lambda *g: sum(g[1:], g[0]), *[s["high"] for s in single])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), whole["high"], total)
    jax.tree.map(np.testing.assert_array_equal, whole["low_2"], single[1]["low_2"])
    assert all(norm(s["high"]) > 1e-4 for s in single)


def test_running_statistics_follow_the_branches_one_after_the_other(variables):
    _, aux, after = forward(variables, BATCH, train=True)
    last_low, first_high = cut(SMALL.sep_pos)
    low, high = VGG(last=last_low, width=SMALL.width), VGG(first=first_high, last=SMALL.last, width=SMALL.width)

    def batch_mean(b, x):
        x, _ = low.apply(part(f"low_{b}"), x, train=True, mutable=["batch_stats"])
        _, new = high.apply(part("high"), x, train=True, mutable=["batch_stats"])
        return new["batch_stats"]["bn2_1"]["mean"] / 0.1  # 0.9 * 0 + 0.1 * mean

    def part(name):
        return {collection: tree[name] for collection, tree in variables.items() if name in tree}

    seen = (aux["half"], aux["super_resolved"], aux["aligned"])
    m1, m2, m3 = (jax.jit(functools.partial(batch_mean, b))(x) for b, x in enumerate(seen, start=1))
    expected = 0.1 * (0.81 * m1 + 0.9 * m2 + m3)
    np.testing.assert_allclose(after["high"]["bn2_1"]["mean"], expected, atol=1e-5)
    assert np.abs(m1 - m3).max() > 1e-3  # the order could not be told from equal means


# Check 3: the spatial transformer


def test_the_stn_starts_at_the_identity_and_learns_through_the_last_branch_only(variables):
    aux = forward(variables, BATCH)[1]
    assert np.abs(aux["aligned"] - BATCH["image"]).max() < 1e-5
    np.testing.assert_allclose(aux["half"], BATCH["image"].reshape(6, 16, 2, 16, 2, 3).mean((2, 4)), atol=1e-5)
    first_two = gradients(variables["params"], variables["batch_stats"], jnp.array([1.0, 1.0, 0.0]))
    assert norm(first_two["stn"]) == 0
    assert norm(first_two["sr_2"]) > 1e-5
    last = gradients(variables["params"], variables["batch_stats"], jnp.array([0.0, 0.0, 1.0]))
    assert norm(last["stn"]) > 1e-5
    assert norm(last["sr_2"]) == 0


def norm(tree):
    return float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)) ** 0.5)
