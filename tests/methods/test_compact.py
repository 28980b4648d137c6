"""The compact network's stems and heads (its parameters are counted in test_parameters)."""

import jax
import numpy as np
import pytest

from fer_jax.methods import compact

BATCH = {"image": np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype(np.float32)}


def small(**fields):
    return compact.Model(num_classes=7, stem_width=4, widths=(4, 4, 8), convolutions=1, **fields)


@pytest.mark.parametrize(("stem", "kernel"), [("patches", (4, 4, 1, 4)), ("conv", (3, 3, 1, 4))])
def test_both_stems_halve_the_map(stem, kernel):
    (_, aux), variables = jax.eval_shape(
        lambda: small(stem=stem).init_with_output(jax.random.key(0), BATCH, train=False)
    )
    assert variables["params"]["stem"]["kernel"].shape == kernel
    assert aux["maps"]["last"].shape == (2, 3, 3, 8)  # 48, 24 after the stem, then three stages


@pytest.mark.parametrize(("head", "kept"), [("max", np.max), ("mean", np.mean)])
def test_the_head_keeps_one_number_of_each_channel(head, kept):
    model = small(head=head)
    (_, aux), _ = jax.jit(lambda: model.init_with_output(jax.random.key(0), BATCH, train=False))()
    np.testing.assert_allclose(aux["features"], kept(aux["maps"]["last"], axis=(1, 2)), rtol=1e-5, atol=1e-6)
