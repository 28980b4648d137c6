"""The model in the package answers without a path, and its card says what its file holds."""

import numpy as np
import pytest
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.inference import trained
from fer_jax.report.markup import percent


def test_it_predicts_without_a_path_and_its_card_is_of_its_weights():
    model = trained.build(*trained.read(), {"train.devices": 1})
    scores, page = model.card["scores"], (trained.SHIPPED.parent / "MODEL_CARD.md").read_text()
    assert trained.SHIPPED.stat().st_size <= 6e6
    assert scores["split"] == "private_test"
    assert all(percent(scores[name]) in page for name in ("accuracy", "mean_recall"))
    assert f"{model.threshold:.3f}" in page
    assert f"{model.card['run']['params']:,}" in page
    face = np.random.default_rng(0).integers(0, 256, (1, 48, 48), np.uint8)
    (row,) = model.predict(face)
    assert row.expression in model.classes
    assert abs(sum(row.probabilities) - 1) < 1e-5
    (explained,) = model.explain(face)
    assert np.isfinite(explained.map).all()
    assert explained.map.any()


def test_an_array_is_cropped_as_a_file_is(tmp_path):
    model = trained.build(*trained.read(), {"train.devices": 1})
    face = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12), np.uint8)).resize((160, 160)))
    Image.fromarray(face).save(tmp_path / "face.png")
    (of_array,) = model.predict(face[None])
    (of_file,) = model.predict(tmp_path / "face.png", cropped=True)
    np.testing.assert_allclose(of_array.probabilities, of_file.probabilities, atol=1e-5)
    for stretched in (np.zeros((2, 48, 60, 3), np.uint8), np.zeros((48, 48, 4), np.uint8)):
        with pytest.raises(UserError, match="a cropped face is square"):
            model.predict(stretched)
