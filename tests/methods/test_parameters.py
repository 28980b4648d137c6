"""Parameter counts to the unit, from shapes alone, and a guard that no method is missing from the table."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.labels import EMOTIONS
from fer_jax.methods import (
    acnn,
    baseline,
    compact,
    compound,
    fan,
    fdrl,
    geometry,
    geometry_sequences,
    psr,
    psr_sr,
    rul,
    word2vec,
)
from fer_jax.methods.strategies import scn


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.cache
def shapes(model, size: int = 64, points: tuple = (24,)):
    """Variables of `model` as shapes: nothing is computed."""
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    clips = jax.ShapeDtypeStruct((2, 3, size, size, 3), jnp.float32)
    batch = {
        "image": images,
        "points": jax.ShapeDtypeStruct((2, *points, 2), jnp.float32),
        "frames": clips,
        "frame_mask": jax.ShapeDtypeStruct((2, 3), jnp.bool_),
    }
    return jax.eval_shape(lambda b: model.init(jax.random.key(0), b, train=False), batch)


GOOGLE_NEWS_SIZE = tuple(tuple(map(float, row)) for row in np.eye(7, 300))

# method -> (its default model for 7 classes, parameters)
TOTALS = {
    "acnn": (acnn.Model(num_classes=7), 209_274_495),
    "baseline": (baseline.Model(num_classes=7), 11_180_103),
    "compact": (compact.Model(num_classes=7), 1_165_376),
    "compound": (compound.Model(num_classes=7, table=compound.part_table(EMOTIONS[:7])), 11_179_590),
    "fan": (fan.Model(num_classes=7), 11_185_225),
    "fdrl": (fdrl.Model(num_classes=7), 12_065_607),
    "geometry": (geometry.Model(num_classes=7), 857_254),
    "geometry_sequences": (geometry_sequences.Model(num_classes=7), 2_947_030),
    "psr": (psr.Model(num_classes=7), 20_149_546),
    "psr_sr": (psr_sr.Model(num_classes=7), 1_369_859),
    "rul": (rul.Model(num_classes=7), 14_388_615),
    "word2vec": (word2vec.Model(num_classes=7, class_vectors=GOOGLE_NEWS_SIZE), 11_330_412),
}

SIZES = {"acnn": 224, "rul": 224}  # a fully connected layer on the map depends on the input's side
POINTS = {"geometry": (68,), "geometry_sequences": (3, 68)}
TRUNK, EPN = 11_176_512, 903


@pytest.mark.parametrize("method", methods.names())  # add a new one to TOTALS
def test_total(method):
    model, expected = TOTALS[method]
    assert count(shapes(model, SIZES.get(method, 64), POINTS.get(method, (24,)))["params"]) == expected


@pytest.mark.parametrize(("use_bias", "fdn", "relation"), [(True, 590_976, 148_608), (False, 589_824, 147_456)])
def test_fdrl_parts(use_bias, fdn, relation):
    variables = shapes(fdrl.Model(num_classes=7, use_bias=use_bias))
    parts = {name: count(tree) for name, tree in variables["params"].items()}
    assert parts == {"trunk": TRUNK, "fdn": fdn, "intra_rm": relation, "inter_rm": relation, "epn": EPN}
    centers = variables["centers"]
    assert count([centers["compactness"], centers["importance"]]) == 1_215


@pytest.mark.parametrize(
    ("modules", "parts"),
    [
        ("none", {"trunk", "epn"}),
        ("wide", {"trunk", "fdn", "epn"}),
        ("fdn", {"trunk", "fdn", "epn"}),
        ("intra", {"trunk", "fdn", "intra_rm", "epn"}),
        ("inter", {"trunk", "fdn", "inter_rm", "epn"}),
        ("both", {"trunk", "fdn", "intra_rm", "inter_rm", "epn"}),
    ],
)
def test_fdrl_ablation_parts(modules, parts):
    variables = shapes(fdrl.Model(num_classes=7, modules=modules, width=8, stem="small"))
    assert set(variables["params"]) == parts


def test_fdrl_without_modules_is_the_baseline():
    assert count(shapes(fdrl.Model(num_classes=7, modules="none"))["params"]) == 11_180_103


def test_scn_adds_one_row_to_the_baseline():
    assert count(shapes(scn.with_importance(baseline.Model)(num_classes=7))["params"]) == 11_180_616


def test_rul_drops_the_branch_of_sigma_at_test():
    params = shapes(rul.Model(num_classes=7), 224)["params"]
    assert count(params["mu"]) == count(params["sigma"]) == 1_605_824
    assert count(rul.METHOD.at_test(params)) == 12_782_791
    kept = shapes(rul.Model(num_classes=7, keep_sigma=True), 224)["params"]
    assert count(rul.METHOD.at_test(kept)) == 14_388_615


@pytest.mark.parametrize(("side", "stn"), [(96, 131_424), (224, 868_704)])
def test_psr_parts(side, stn):
    """Only the localization of the STN depends on the size of the image."""
    parts = {name: count(tree) for name, tree in shapes(psr.Model(num_classes=8), side)["params"].items()}
    low = {f"low_{branch}": 1_737_792 for branch in (1, 2, 3)}
    assert parts == low | {"stn": stn, "sr_2": 1_369_859, "high": 12_985_344, "head": 531_976}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"global_unit": False}, 150_216_061),
        ({"affine": True}, 209_340_696),
        ({"gates": False}, 209_274_495 - 25 * 73_986),
    ],
)
def test_acnn_totals(fields, expected):
    assert count(shapes(acnn.Model(num_classes=7, **fields), 224)["params"]) == expected


def test_acnn_parts():
    params = shapes(acnn.Model(num_classes=7), 224)["params"]
    assert {name: count(tree) for name, tree in params.items()} == {
        "input_bn": 6,
        "vgg": 5_275_456,
        "pg_units": 24 * 5_973_314,
        "gg_unit": 58_534_146,
        "fc1": 2048 * 1024 + 1024,
        "fc2": 1024 * 7 + 7,
    }
    gates = params["pg_units"]["out"]["gate"], params["gg_unit"]["out"]["gate"]
    assert [count(gate) for gate in gates] == [24 * 73_986, 73_986]


@pytest.mark.parametrize(
    ("attention", "parts"),
    [
        ("score_fusion", {"classifier": 3_591}),
        ("mean", {"classifier": 3_591}),
        ("self", {"self_attention": 513, "classifier": 3_591}),
        ("relation", {"self_attention": 513, "relation_attention": 1_025, "classifier": 7_175}),
    ],
)
def test_fan_parts(attention, parts):
    params = shapes(fan.Model(num_classes=7, attention=attention))["params"]
    assert {name: count(tree) for name, tree in params.items()} == {"trunk": TRUNK, **parts}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"trunk": TRUNK, "head": 153_900}),
        ({"learn_scale": True}, {"trunk": TRUNK, "head": 153_900, "log_scale": 1}),
        ({"learn_delta": True}, {"trunk": TRUNK, "head": 153_900, "delta": 2_100}),
    ],
)
def test_word2vec_parts(fields, expected):
    """The class vectors are constants: only A6 has a parameter beside the trunk, the head and the temperature."""
    variables = shapes(word2vec.Model(num_classes=7, class_vectors=GOOGLE_NEWS_SIZE, **fields))
    assert {name: count(tree) for name, tree in variables["params"].items()} == expected


def test_word2vec_on_a_resnet_50():
    model = word2vec.Model(num_classes=7, class_vectors=GOOGLE_NEWS_SIZE, depth=50)
    assert count(shapes(model)["params"]) == 24_122_732
