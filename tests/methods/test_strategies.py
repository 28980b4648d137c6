"""Strategies against their formulas, and which methods they may be combined with."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import methods
from fer_jax.config.check import check_config
from fer_jax.errors import UserError
from fer_jax.methods import rows, strategies
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Clock, Output
from fer_jax.methods.objective import load
from fer_jax.methods.strategies import cutmix, small_loss

KEYS = [jax.random.key(seed) for seed in range(40)]


def config_of(method="baseline", **fields):
    config = importlib.import_module(f"experiments.{method}").get_config("smoke")
    config.update_from_flattened_dict(fields)
    return config


def hook(name, **options) -> Any:
    """What a strategy sets."""
    strategy = load(name)
    return vars(strategy.apply(methods.load("baseline"), **options))[strategy.claims[0]]


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 6)
    return {
        "image": jnp.asarray(rng.normal(size=(6, 8, 10, 3)), jnp.float32),
        "target": 0.9 * jax.nn.one_hot(label, 3) + 0.1 / 3,
        "weight": jnp.asarray(rng.uniform(0.5, 2.0, 6), jnp.float32),
        "index": jnp.arange(6),
    }


@pytest.mark.parametrize("key", KEYS[:2], ids=range(2))
def test_mixup_mixes_pixels_and_losses_with_one_share(batch, key):
    mixed = hook("mixup", alpha=1.0)(batch, key)
    share_key, order_key = jax.random.split(key)
    share = jax.random.beta(share_key, 1.0, 1.0)
    j = jax.random.permutation(order_key, 6)
    np.testing.assert_allclose(
        mixed["image"], share * batch["image"] + (1 - share) * batch["image"][j], rtol=1e-5, atol=1e-6
    )
    logits = jax.random.normal(key, (6, 3))
    weighted = batch["weight"] * cross_entropy(logits, batch["target"])
    theirs = batch["weight"][j] * cross_entropy(logits, batch["target"][j])
    ours = mixed["weight"] * cross_entropy(logits, mixed["target"])
    np.testing.assert_allclose(ours, share * weighted + (1 - share) * theirs, rtol=1e-5)
    np.testing.assert_allclose(mixed["target"].sum(-1), 1.0, rtol=1e-6)
    hits = mixed["target_hits"]
    np.testing.assert_allclose(hits.sum(-1), 1.0, rtol=1e-6)
    right = (jnp.argmax(batch["target"], -1) == 1).astype(jnp.float32)
    expected = share * right + (1 - share) * right[j]
    np.testing.assert_allclose(hits[:, 1], expected, atol=1e-6)


def test_cutmix_takes_the_share_of_the_pixels_that_were_pasted(batch):
    mix = hook("cutmix", probability=1.0)
    shares = []
    for key in KEYS:
        mixed = mix(batch, key)
        j = jax.random.permutation(jax.random.split(key, 3)[1], 6)
        pasted = np.any(np.asarray(mixed["image"] != batch["image"]), axis=-1)
        np.testing.assert_array_equal(mixed["image"], jnp.where(pasted[..., None], batch["image"][j], batch["image"]))
        moved = np.flatnonzero(np.asarray(j) != np.arange(6))
        share = 1 - pasted[moved[0]].mean()
        weight = share * batch["weight"] + (1 - share) * batch["weight"][j]
        np.testing.assert_allclose(mixed["weight"], weight, rtol=1e-5)
        own = (share * batch["weight"] / weight)[:, None]
        target = own * batch["target"] + (1 - own) * batch["target"][j]
        np.testing.assert_allclose(mixed["target"], target, rtol=1e-5)
        np.testing.assert_allclose(mixed["target"].sum(-1), 1.0, rtol=1e-6)
        shares.append(share)
    assert min(shares) < 0.5 < 0.9 < max(shares)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_share_of_one_mixes_nothing(batch, name, monkeypatch):
    mix = hook(name)
    monkeypatch.setattr(jax.random, "beta", lambda *_: jnp.float32(1.0))
    for key in KEYS[:5]:
        mixed = mix(batch, key)
        for field in ("image", "target", "weight"):
            np.testing.assert_array_equal(mixed[field], batch[field])


def test_cutmix_leaves_a_step_alone_with_the_rest_of_its_probability(batch):
    mix = hook("cutmix", probability=0.0)
    for key in KEYS[:5]:
        mixed = mix(batch, key)
        for name in ("image", "target", "weight"):
            np.testing.assert_allclose(mixed[name], batch[name], rtol=1e-6)


def test_a_box_is_clipped_to_the_image():
    sizes = [np.argwhere(np.asarray(cutmix.box(key, 8, 10, 1.0))) for key in KEYS]
    for found in sizes:
        if len(found):
            height, width = np.ptp(found, axis=0) + 1
            assert height * width == len(found)
    assert any(len(found) and found[:, 1].max() == 9 for found in sizes)


@pytest.mark.parametrize(("epoch", "kept"), [(0.0, 1.0), (0.99, 1.0), (5.5, 0.9), (10.0, 0.8), (30.0, 0.8)])
def test_fewer_examples_are_kept_as_epochs_go_by(epoch, kept):
    np.testing.assert_allclose(small_loss.kept_fraction(jnp.float32(epoch), 0.2, 10.0), kept, rtol=1e-6)


def test_the_smallest_losses_are_selected_and_ties_go_by_index():
    select = hook("small_loss", tau=0.5, epochs=1.0)
    terms = {"a": jnp.array([1.0, 0.5, 0.5, 0.5, 2.0, 9.0]), "b": jnp.zeros(6)}
    batch = {"index": jnp.array([4, 9, 2, 7, 1, 0]), "mask": jnp.array([True, True, True, True, True, False])}
    outputs = (Output(jnp.zeros((6, 3)), {}),)
    early = select(terms, outputs, batch, Clock(jnp.int32(0), jnp.float32(0.0)))
    np.testing.assert_array_equal(early, [1, 1, 1, 1, 1, 0])
    late = select(terms, outputs, batch, Clock(jnp.int32(9), jnp.float32(3.0)))
    np.testing.assert_array_equal(late, [0, 0, 1, 1, 0, 0])  # two of five: those with index 2 and 7
    order = jnp.array([3, 1, 5, 0, 2, 4])
    moved = jax.tree.map(lambda x: x[order], (terms, batch))
    permuted = select(moved[0], outputs, moved[1], Clock(jnp.int32(9), jnp.float32(3.0)))
    np.testing.assert_array_equal(permuted, late[order])


def test_small_loss_of_no_share_selects_every_example():
    batch = {"index": jnp.arange(6), "mask": jnp.arange(6) < 5}
    kept = hook("small_loss", tau=0.0)({"a": jnp.arange(6.0)}, (), batch, Clock(jnp.int32(9), jnp.float32(30.0)))
    np.testing.assert_array_equal(kept, batch["mask"])


def test_ranks_and_rows_are_settled_by_index():
    values = jnp.array([3.0, 1.0, 1.0, 2.0])
    np.testing.assert_array_equal(rows.rank(values, jnp.array([0, 9, 4, 1])), [3, 1, 0, 2])
    memory = jnp.zeros((5, 2))
    written = rows.write(
        memory, jnp.array([4, 1, 4, 0]), jnp.arange(8.0).reshape(4, 2), jnp.array([True, True, True, False])
    )
    np.testing.assert_array_equal(written, [[0, 0], [2, 3], [0, 0], [0, 0], [4, 5]])


@pytest.mark.parametrize("method", ["baseline", "fdrl", "acnn", "psr"])
def test_every_strategy_fits_every_classifier_of_images(method):
    for name in [*strategies.names(), "small_loss+cutmix", "mixup+small_loss"]:
        fields = {"train.epochs": 20.0}  # some begin after a warm-up
        if name == "relabel":
            fields["strategy.relabel.scope"] = "batch"
        if name == "vac" and method in ("acnn", "psr"):  # which take one size
            fields["strategy.vac.scale"] = 1.0
        if name == "arcface" and method in ("fdrl", "psr"):  # whose classifier is not one linear layer
            continue
        check_config(config_of(method, objective=name, **fields))


SEVERAL = {"data.target": "multi_target", "loss.options.classification": "multi_target", "train.epochs": 20.0}
REFUSED = {
    "a misspelt name": ("baseline", {"objective": "cutmx"}, "no strategy 'cutmx'.*cutmix"),
    "two with one hook": ("baseline", {"objective": "mixup+cutmix"}, "mixup and cutmix both set 'mix'"),
    "twice the same": ("baseline", {"objective": "mixup+mixup"}, "both set 'mix'"),
    "two that show several views": ("baseline", {"objective": "eac+vac"}, "eac and vac both set 'views'"),
    "a box in views of two sizes": ("baseline", {"objective": "cutmix+vac"}, "cutmix changes the same pixels of all"),
    "a network of one size": ("acnn", {"objective": "vac"}, "config.strategy.vac.scale=1"),
    "a branch of one size": ("rul", {"objective": "vac"}, "config.strategy.vac.scale=1"),
    "views after partners": ("baseline", {"objective": "ldl_alsg+eac"}, "config.objective='eac.ldl_alsg'"),
    "clips": ("fan", {"objective": "mixup"}, "fan takes clips"),
    "no classes": ("psr_sr", {"objective": "small_loss"}, "psr_sr predicts none"),
    "an option without effect": ("baseline", {"strategy.mixup.alpha": 1.0}, "config.strategy.mixup.alpha"),
    "a share of all": ("baseline", {"objective": "small_loss", "strategy.small_loss.tau": 1.0}, "small_loss.tau"),
    "micro-batches": ("baseline", {"objective": "small_loss", "train.accumulate": 2}, "config.train.accumulate=2"),
    "a method with batch terms": ("fdrl", {"train.accumulate": 2}, "config.train.accumulate=2"),
    "relabeling after the end": ("baseline", {"objective": "scn"}, "scn.start=10.*train.epochs=2"),
    "relabeling of mixtures": ("baseline", {"objective": "scn+mixup", "strategy.scn.start": 1.0}, "mixup mixes two"),
    "an empty group": ("baseline", {"objective": "scn", "strategy.scn.beta": 0.99}, "scn.beta=0.99.*batch_size=32"),
    "no uncertainty": ("baseline", {"objective": "relabel", "strategy.relabel.start": 1.0}, "provides no uncertainty"),
    "two uncertainties": ("rul", {"objective": "scn", "strategy.scn.start": 1.0}, "give 'relabel'"),
    "relabeling of several right classes": ("baseline", {**SEVERAL, "objective": "scn"}, "scn judges the one label"),
    "dropping of several right classes": ("baseline", {**SEVERAL, "objective": "dropping"}, "dropping judges the one"),
    "no logits": ("word2vec", {"objective": "scn", "strategy.scn.start": 1.0}, "kind='cosine' trains cosines"),
    "dropping after the end": ("baseline", {"objective": "dropping"}, "dropping.start=10.*train.epochs=2"),
    "two with one memory": ("baseline", {"objective": "scn+dropping", "train.epochs": 20.0}, "both set 'memory'"),
    "several right classes": (
        "baseline",
        {"objective": "mixup", "data.target": "multi_target", "loss.options.classification": "multi_target"},
        "config.data.target='multi_target'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(case):
    method, fields, says = REFUSED[case]
    with pytest.raises(UserError, match=says) as error:
        check_config(config_of(method, **fields))
    assert "\n" not in str(error.value)
