"""The model in the package answers without a path, and its card says what its file holds."""

import numpy as np

import fer_jax
from fer_jax.inference.trained import SHIPPED
from fer_jax.report.markup import percent


def test_it_predicts_without_a_path_and_its_card_is_of_its_weights():
    model = fer_jax.load()
    scores, page = model.card["scores"], (SHIPPED.parent / "MODEL_CARD.md").read_text()
    assert SHIPPED.stat().st_size <= 6e6
    assert scores["split"] == "private_test"
    assert all(percent(scores[name]) in page for name in ("accuracy", "mean_recall"))
    assert f"{model.threshold:.3f}" in page
    assert f"{model.card['run']['params']:,}" in page
    (row,) = model.predict(np.random.default_rng(0).integers(0, 256, (1, 48, 48), np.uint8))
    assert row.expression in model.classes
    assert abs(sum(row.probabilities) - 1) < 1e-5
