"""A whole run on wrong labels, scored on degraded images: what its results say, and that only training was touched."""

import json

import numpy as np
from etils import epath

from fer_jax.data.sources.source import load
from fer_jax.evaluation.results import headline
from fer_jax.inference.evaluate import evaluate
from fer_jax.report.scores import header
from fer_jax.report.sections import wrong_labels
from fer_jax.runs import results as writing
from fer_jax.training import loop

DEGRADED = ("low_resolution:16", "gaussian_noise:5", "jpeg:5")


def test_a_run_on_wrong_labels_scored_on_degraded_images(tiny, tmp_path, capsys, monkeypatch):
    config = tiny(max_steps=2)
    config.data.update(label_noise="asymmetric", label_noise_rate=0.3, label_noise_seed=4)
    config.evaluation.degraded = DEGRADED
    workdir = epath.Path(tmp_path / "run")
    given = []
    original = writing.write_predictions
    monkeypatch.setattr(writing, "write_predictions", lambda *a: (given.append(a[1].source), original(*a)))
    results = loop.train(config, workdir)

    noise = json.loads((workdir / "results.json").read_text())["label_noise"]
    assert noise == results["label_noise"]
    assert (noise["kind"], noise["rate"], noise["seed"]) == ("asymmetric", 0.3, 4)
    assert noise["examples"] == results["training_examples"]
    assert 0.2 < noise["changed_share"] == noise["changed"] / noise["examples"] < 0.4
    assert len(noise["labels_sha256"]) == 64
    assert f"asymmetric: {noise['changed']} of {noise['examples']} training labels" in capsys.readouterr().out

    (scored,) = given
    clean = load(tiny().data, "test", training=False)
    np.testing.assert_array_equal(scored.arrays["label"], clean.arrays["label"])
    assert "clean_label" not in scored.arrays
    assert np.sum(results["confusion"], axis=1).tolist() == clean.class_counts().tolist()

    assert tuple(results["degraded"]) == DEGRADED
    for found in results["degraded"].values():
        assert found["accuracy_lost"] == results["accuracy"] - found["accuracy"]
        assert np.sum(found["confusion"]) == 70
        assert found["nll"] != results["nll"]
    assert results["degraded"]["low_resolution:16"]["pixels"] == 16
    assert len({found["images_sha256"] for found in results["degraded"].values()}) == 3

    assert f"{100 * noise['changed_share']:.1f}" in header(results)
    assert 0 < noise["model"]["auroc"]["loss"] < 1
    assert f"AUROC {noise['model']['auroc']['loss']:.3f}" in wrong_labels(noise)

    # The finished run scored again, on what it was not asked about at first.
    changes = {"train.devices": 1, "evaluation.degraded": ("jpeg:5",), "evaluation.occluded": True}
    again = evaluate(workdir, changes=changes)
    assert again["degraded"]["jpeg:5"] == results["degraded"]["jpeg:5"]
    assert again["occluded"]["nll"] != again["nll"]
    assert again["degraded"]["jpeg:5"]["quality"] == 7
    assert again["label_noise"] == noise
    assert "jpeg:5: accuracy" in headline(again)
