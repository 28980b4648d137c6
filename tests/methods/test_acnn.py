"""ACNN's mechanism checks: shapes, crops, locality, unshared units, gates (checks 1 to 5 and 8)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from planted import terms_of

from fer_jax.data.augment.inputs import mirrored
from fer_jax.errors import UserError
from fer_jax.methods import acnn

B, SIZE, C = 6, 28, 7
SMALL = dict(  # F is 14x14, patches 3x3: as many patches across the face as in the paper
    num_classes=C, width=8, cut="conv2_1", patch=3, patch_features=8, global_features=16, gate_channels=8,
    gate_hidden=8, hidden=16,
)  # fmt: skip
CELLS = SIZE // 2


def small(**fields):
    return acnn.Model(**SMALL | fields)


def batch(seed=0):
    """Random images; all points in the left upper part of the face, so that some of F is in no patch."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, C, B)
    return {
        "image": jnp.asarray(rng.standard_normal((B, SIZE, SIZE, 3)), jnp.float32),
        "points": jnp.asarray(rng.uniform(0, 0.6 * SIZE, (B, acnn.POINTS, 2)), jnp.float32),
        "target": jax.nn.one_hot(label, C),
        "mask": jnp.ones(B, jnp.bool_),
    }


@functools.cache
def variables(model):
    return jax.jit(lambda b: model.init(jax.random.key(1), b, train=False))(batch())


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, values, data, change=None):
    """(logits, aux); `change` [B, H, W, C] is added to F."""

    def changed(next_method, args, kwargs, context):
        f = next_method(*args, **kwargs)
        here = context.module.path == ("vgg",) and change is not None
        return f + change if here else f

    with nn.intercept_methods(changed):
        return model.apply(values, data, train=False)


def noise_at(cells, seed=1):
    """Random numbers [B, H, W, C] in the given cells of F (bool [B, H, W]), zero elsewhere."""
    channels = 2 * SMALL["width"]
    noise = np.random.default_rng(seed).standard_normal((B, CELLS, CELLS, channels))
    return jnp.asarray(noise * cells[..., None], jnp.float32)


def windows(points, patch=SMALL["patch"]):
    """Which cells of F each patch sees, bool [B, 24, H, W], counted out cell by cell."""
    seen = np.zeros((B, acnn.POINTS, CELLS, CELLS), bool)
    for b in range(B):
        for p in range(acnn.POINTS):
            x, y = (int(np.copysign(np.floor(abs(v / 2 - patch / 2) + 0.5), v / 2 - patch / 2)) for v in points[b, p])
            seen[b, p, max(y, 0) : max(y + patch, 0), max(x, 0) : max(x + patch, 0)] = True
    return seen


def test_1_shapes_of_the_paper():
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    data = {"image": image, "points": jax.ShapeDtypeStruct((2, 24, 2), jnp.float32)}
    for global_unit, gates, length in ((False, 24, 1536), (True, 25, 2048)):
        model = acnn.Model(num_classes=7, global_unit=global_unit)
        (logits, aux), _ = jax.eval_shape(
            lambda d, m=model: m.init_with_output(jax.random.key(0), d, train=False), data
        )
        assert logits.shape == (2, 7)
        assert aux["maps"]["last"].shape == (2, 28, 28, 512)
        assert aux["psi"].shape == (2, 24, 64)
        assert aux["alpha"].shape == (2, gates)
        assert aux["features"].shape == (2, length)
        patches = jax.eval_shape(lambda f, p: acnn.crops(f, p, 8, 6), aux["maps"]["last"], data["points"])
        assert patches.shape == (2, 24, 6, 6, 512)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_1_gates_lie_between_0_and_1_and_results_are_float32(dtype):
    model, values = small(dtype=dtype), variables(small(dtype=dtype))

    @jax.jit
    def train(key):
        return model.apply(values, batch(), train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    logits, aux = train(jax.random.key(0))
    alpha = np.asarray(aux["alpha"])
    assert alpha.min() > 0
    assert alpha.max() < 1
    assert np.abs(alpha.mean(0) - 0.5).max() < 0.2  # normalized over the batch: spread around a half
    assert (alpha.std(0) > 0.05).all()
    assert all(x.dtype == jnp.float32 for x in (logits, aux["alpha"], aux["psi"], *jax.tree.leaves(values)))


def test_1_kernels_start_as_msra_says_and_biases_at_zero():
    params = variables(small(width=16))["params"]
    for layer, inputs in (("conv1_2", 16), ("conv2_1", 16)):
        kernel = np.asarray(params["vgg"][layer]["kernel"])
        np.testing.assert_allclose(kernel.std(), (2 / (9 * inputs)) ** 0.5, rtol=0.05)
    kernel = np.asarray(params["gg_unit"]["vgg"]["conv3_1"]["kernel"])
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 32)) ** 0.5, rtol=0.05)
    flat = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params)}
    assert all((x == 0).all() for name, x in flat.items() if name.endswith("['bias']"))
    conv = np.asarray(params["pg_units"]["conv1"]["kernel"])
    assert conv.shape == (24, 3, 3, 32, 32)
    np.testing.assert_allclose(conv.std(axis=(1, 2, 3, 4)), (2 / (9 * 32)) ** 0.5, rtol=0.05)
    fc = np.asarray(params["pg_units"]["out"]["fc"]["kernel"])
    np.testing.assert_allclose(fc.std(), (2 / (9 * 32)) ** 0.5, rtol=0.05)
    assert not np.allclose(conv[0], conv[1])


@pytest.mark.parametrize(
    ("x", "first"), [(112, 11), (0, -3), (223, 25), (4, -3), (20, -1), (12, -2), (28, 1), (-1, -3), (400, 47)]
)
def test_2_crops_are_exact(x, first):
    """Halves are rounded away from zero: x = 4 starts at -3 and x = 20 at -1, where half-to-even gives -2 and 0."""
    cell = jnp.arange(28.0)[:, None] * 28 + jnp.arange(28.0)
    f = jnp.broadcast_to(1 + cell[None, :, :, None], (2, 28, 28, 5))
    points = jnp.array([[[x, 112.0]], [[112.0, x]]])
    found = np.asarray(jax.jit(lambda f, p: acnn.crops(f, p, 8, 6))(f, points))
    along, other = first + np.arange(6), 11 + np.arange(6)
    valid = (along >= 0) & (along < 28)
    across = np.where(valid[None, :], 1 + other[:, None] * 28 + along[None, :], 0)
    down = np.where(valid[:, None], 1 + along[:, None] * 28 + other[None, :], 0)
    np.testing.assert_array_equal(found[0, 0], np.repeat(across[..., None], 5, axis=-1))
    np.testing.assert_array_equal(found[1, 0], np.repeat(down[..., None], 5, axis=-1))


def test_2_both_forms_of_a_crop_are_the_same_function():
    rng = np.random.default_rng(0)
    f = jnp.asarray(rng.standard_normal((3, 9, 7, 4)), jnp.float32)
    first = jnp.asarray(rng.integers(-9, 14, (3, 24, 2)), jnp.float32)
    dy = jnp.asarray(rng.standard_normal((3, 24, 4, 4, 4)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def passes(form, f, dy):
        y, pullback = jax.vjp(lambda f: form(f, first, 4), f)
        return y, pullback(dy)[0]

    (y, df), (other_y, other_df) = (passes(form, f, dy) for form in (acnn.crop_slices, acnn.crop_products))
    np.testing.assert_array_equal(y, other_y)
    np.testing.assert_allclose(df, other_df, rtol=1e-5, atol=1e-5)


def test_2_gradient_of_a_crop_goes_to_its_cells_and_not_to_the_points():
    f = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 2)), jnp.float32)
    points = jnp.array([[[20.0, 36.0], [28.0, 36.0]]])

    def objective(f, points):
        patches = acnn.crops(f, points, 8, 4)
        return jnp.sum(patches[:, 0]) + 10 * jnp.sum(patches[:, 1])

    to_f, to_points = jax.jit(jax.grad(objective, argnums=(0, 1)))(f, points)
    expected = np.zeros((8, 8))
    expected[3:7, 1:5] += 1
    expected[3:7, 2:6] += 10
    np.testing.assert_array_equal(to_f[0, ..., 0], expected)
    assert not np.any(to_points)


def test_3_locality():
    model, data = small(global_unit=False), batch()
    values = variables(model)
    seen = windows(np.asarray(data["points"]))
    logits, aux = evaluate(model, values, data)
    outside = ~seen.any(axis=1)
    assert outside.mean() > 0.2
    same, _ = evaluate(model, values, data, noise_at(outside))
    np.testing.assert_array_equal(same, logits)

    chosen = np.zeros((B, CELLS, CELLS), bool)
    rows, columns = (np.nonzero(seen[0, 5])[axis][4] for axis in (0, 1))
    chosen[0, rows, columns] = True
    other_logits, other = evaluate(model, values, data, noise_at(chosen))
    moved = np.any(np.asarray(other["psi"]) != np.asarray(aux["psi"]), axis=-1)
    gates = np.asarray(other["alpha"]) != np.asarray(aux["alpha"])
    covering = (seen & chosen[:, None]).any(axis=(2, 3))
    np.testing.assert_array_equal(moved | gates, covering)
    np.testing.assert_array_equal(other_logits[1:], logits[1:])
    assert not np.allclose(other_logits[0], logits[0])


def test_3_the_global_unit_sees_all_of_f():
    model, data = small(), batch()
    outside = ~windows(np.asarray(data["points"])).any(axis=1)
    logits, aux = evaluate(model, variables(model), data)
    changed_logits, changed = evaluate(model, variables(model), data, noise_at(outside))
    np.testing.assert_array_equal(changed["psi"], aux["psi"])
    assert not np.allclose(changed["psi_global"], aux["psi_global"])
    assert np.all(np.any(changed_logits != logits, axis=1))


def test_4_units_are_not_shared():
    model, data = small(global_unit=False), batch()
    values = variables(model)

    @jax.jit
    def gradient(params):
        def objective(params):
            return jnp.sum(model.apply(values | {"params": params}, data, train=False)[1]["psi"][:, 7])

        return jax.grad(objective)(params)["pg_units"]

    grads = gradient(values["params"])
    for kernel in (grads["conv1"]["kernel"], grads["conv2"]["kernel"], grads["out"]["fc"]["kernel"]):
        size = np.abs(kernel).reshape(acnn.POINTS, -1).max(axis=1)
        assert size[7] > 0
        assert not size[np.arange(acnn.POINTS) != 7].any()

    swapped = data | {"points": data["points"][:, jnp.array([1, 0, *range(2, acnn.POINTS)])]}
    psi, psi_swapped = (np.asarray(evaluate(model, values, d)[1]["psi"]) for d in (data, swapped))
    assert not np.allclose(psi_swapped[:, 0], psi[:, 1])  # the same crop through another unit
    np.testing.assert_array_equal(psi_swapped[:, 2:], psi[:, 2:])


def test_4_all_units_at_once_are_the_units_one_by_one():
    unit = dict(channels=4, features=8, gate=functools.partial(acnn.Gate, 4, 8))
    patches = jnp.asarray(np.random.default_rng(0).standard_normal((B, 24, 4, 4, 4)), jnp.float32)
    units = acnn.PGUnits(**unit)
    values = jax.jit(lambda x: units.init(jax.random.key(0), x, False))(patches)
    together = jax.jit(lambda x: units.apply(values, x, True, mutable=["batch_stats"]))(patches)
    alone = acnn.PGUnit(**unit)

    @jax.jit
    def one(values, patch):
        return alone.apply(values, patch, True, mutable=["batch_stats"])

    for i in (0, 11, 23):
        mine = jax.tree.map(lambda x, i=i: x[i], values)
        (psi, alpha), stats = one(mine, patches[:, i])
        np.testing.assert_allclose(together[0][0][:, i], psi, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(together[0][1][:, i], alpha, rtol=1e-5, atol=1e-5)
        expected = jax.tree.map(lambda x, i=i: x[i], together[1])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), expected, stats)


@pytest.mark.parametrize("global_unit", [False, True])
def test_5_a_closed_gate_hides_its_patch(global_unit):
    model, data = small(global_unit=global_unit), batch()
    values, gates = variables(model), acnn.POINTS + global_unit
    closed = jnp.full(gates, jnp.nan).at[3].set(0.0)
    elsewhere = data | {"points": data["points"].at[:, 3].set(jnp.array([25.0, 25.0]))}
    logits, _ = evaluate(model, values, data | {"alpha": closed})
    moved, aux = evaluate(model, values, elsewhere | {"alpha": closed})
    np.testing.assert_allclose(moved, logits, atol=1e-6)
    assert not np.allclose(evaluate(model, values, elsewhere)[0], evaluate(model, values, data)[0], atol=1e-3)
    assert not np.any(aux["alpha"][:, 3])
    assert np.all(aux["alpha"][:, 4] > 0)


def without_gates(values):
    """The variables of a model less those of its gates."""
    flat = flatten_dict(values)
    return unflatten_dict({path: x for path, x in flat.items() if "gate" not in path})


def test_5_open_gates_are_the_model_without_gates():
    model, without, data = small(), small(gates=False), batch()
    values = variables(model)
    kept = jax.tree.map(lambda theirs, ours: ours, variables(without), without_gates(values))
    opened, _ = evaluate(model, values, data | {"alpha": jnp.ones(25)})
    plain, aux = evaluate(without, kept, data)
    np.testing.assert_allclose(opened, plain, rtol=1e-6, atol=1e-6)
    assert np.all(aux["alpha"] == 1)
    assert not np.allclose(evaluate(model, values, data)[0], plain, atol=1e-3)


def test_8_the_gates_learn_from_the_cross_entropy_alone():
    """What is covered may stand in the batch, truly, falsely or not at all: loss and gradients are the same numbers."""
    model, data = small(), batch()
    values = variables(model)

    @jax.jit
    def loss_and_gradient(params, data):
        def objective(params):
            (logits, aux), _ = model.apply(
                values | {"params": params}, data, train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )  # fmt: skip
            return sum(jnp.mean(term) for term in terms_of(acnn, logits, aux, data).values())

        return jax.value_and_grad(objective)(params)

    loss, grads = loss_and_gradient(values["params"], data)
    assert loss > 0
    rng = np.random.default_rng(0)
    for _ in range(2):
        told = {
            "occlusion": jnp.asarray(rng.random((B, SIZE, SIZE, 1)) < 0.3, jnp.float32),
            "occluded_fraction": jnp.asarray(rng.random(B), jnp.float32),
        }
        again = loss_and_gradient(values["params"], data | told)
        jax.tree.map(np.testing.assert_array_equal, again, (loss, grads))
    patches, whole = grads["pg_units"]["out"]["gate"], grads["gg_unit"]["out"]["gate"]
    for layer in ("conv", "fc1", "fc2"):
        assert (np.abs(patches[layer]["kernel"]).reshape(24, -1).max(axis=1) > 0).all(), layer
        assert np.abs(whole[layer]["kernel"]).max() > 0, layer
    assert np.all(patches["scale"] != 0)
    assert np.all(whole["scale"] != 0)


def test_a_mirrored_face_gives_mirrored_crops():
    """At points on the edges of cells, where no rounding is in the way (x and 63 - x are an eighth apart)."""
    pairs = tuple(np.random.default_rng(3).permutation(24).tolist())
    rng = np.random.default_rng(0)
    f = rng.standard_normal((2, 8, 8, 3))
    image = jnp.asarray(f.repeat(8, axis=1).repeat(8, axis=2), jnp.float32)
    data = {"image": image, "points": jnp.asarray(8 * rng.integers(0, 8, (2, 24, 2)), jnp.float32)}

    def look(data):
        return np.asarray(acnn.crops(data["image"][:, ::8, ::8], data["points"], 8, 6))

    flipped = mirrored(data, pairs)
    np.testing.assert_array_equal(look(flipped), look(data)[:, list(pairs), :, ::-1])


def test_dropout_needs_its_stream_only_while_training():
    model, data = small(), batch()
    values = variables(model)

    @jax.jit
    def train(key):
        return model.apply(values, data, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0][0]

    assert not np.allclose(train(jax.random.key(1)), train(jax.random.key(2)))


def test_monitor_tells_whether_gates_live():
    aux = {"alpha": jnp.array([[0.2, 0.5], [0.4, 0.5]])}
    seen = acnn.monitor(jnp.zeros((2, C)), aux, {})
    np.testing.assert_allclose(seen["alpha_mean"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(seen["alpha_spread"], 0.05, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "size", "says"),
    [
        ({"cut": "conv4_9"}, SIZE, "model.cut='conv4_9': did you mean"),
        ({"cut": "conv5_1"}, SIZE, "model.cut='conv5_1': did you mean"),
        ({"cut": "conv4_2"}, 24, "model.cut='conv4_2' makes a map of 3x3 cells"),
        ({"patch": 1}, SIZE, "model.patch=1"),
    ],
)
def test_mistakes_are_named(fields, size, says):
    data = batch() | {"image": jnp.zeros((B, size, size, 3))}
    with pytest.raises(UserError, match=says):
        jax.eval_shape(lambda: small(**fields).init(jax.random.key(0), data, train=False))


def test_points_are_needed():
    data = {"image": batch()["image"]}
    with pytest.raises(UserError, match="config.data.points='face24'"):
        jax.eval_shape(lambda: small().init(jax.random.key(0), data, train=False))


def test_how_much_of_a_patch_is_covered():
    masks = np.zeros((1, 48, 48, 1), np.float32)
    masks[0, :, 24:] = 1  # the right half: cells 6 to 11 of 12
    points = np.array([[(10, 24), (24, 24), (26, 24), (40, 24), (0, 0), (47, 24)]], np.float32)
    # The first column of 3 cells is round(x / 4 - 1.5): 1, 5 (4.5, away from zero), 5, 9 (8.5), -2 and 10.
    found = acnn.patch_coverage(jnp.asarray(masks), jnp.asarray(points), stride=4, patch=3)
    np.testing.assert_allclose(found, [[0, 2 / 3, 2 / 3, 1, 0, 1]], atol=1e-6)  # of the last a third is outside


def test_patches_that_are_told_what_is_hidden_count_for_what_is_seen_of_them():
    model, data = small(told=True), batch()
    values = variables(model)
    clean, aux = evaluate(model, values, data)
    assert np.all(aux["alpha"] == 1)
    masks = jnp.zeros((B, SIZE, SIZE, 1)).at[:, : SIZE // 3].set(1)
    behind, aux = evaluate(model, values, data | {"occlusion": masks})
    np.testing.assert_array_equal(aux["alpha"], np.c_[1 - aux["coverage"], np.ones(B)])
    assert aux["coverage"].max() == 1
    assert np.abs(behind - clean).max() > 1e-3
    assert "gate" not in str(jax.tree.structure(values["params"]))


def test_a_cell_has_the_mean_gate_of_the_patches_that_see_it():
    first = jnp.array([[[0.0, 1.0], [1.0, 1.0], [-1.0, 3.0]]])  # (column, row)
    weights = acnn.patch_weights(jnp.array([[0.2, 0.6, 1.0]]), first, 2, (4, 4))
    np.testing.assert_allclose(weights[0], [[0, 0, 0, 0], [0.2, 0.4, 0.6, 0], [0.2, 0.4, 0.6, 0], [1, 0, 0, 0]])
