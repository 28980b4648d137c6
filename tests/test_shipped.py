"""The model in the package answers without a path, and its card says what its file holds."""

import numpy as np
import pytest
from etils import epath
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.inference import trained
from fer_jax.report.markup import percent
from fer_jax.runs.model_file import halved, read_model, write_model


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


def test_halved_parameters_are_read_as_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    path = epath.Path(tmp_path / "half.safetensors")
    write_model(path, halved({"params": {"w": values}, "batch_stats": {"mean": values}}), {})
    half, _ = read_model(path)
    np.testing.assert_array_equal(half["batch_stats"]["mean"], values)
    assert half["params"]["w"].dtype == np.float32
    np.testing.assert_allclose(half["params"]["w"], values, rtol=2**-8)  # bfloat16 has 8 bits
    assert 6 * 4000 < path.stat().length < 6 * 4000 + 1000


def test_the_fields_that_scoring_may_change_are_read():
    variables, card = trained.read()
    card["config"]["evaluation"]["views"] = ""
    assert trained.build(variables, card, {"evaluation.flip": True}).task.flip_evaluation
    assert not trained.build(variables, card, {}).task.flip_evaluation
