"""The report of every fold together, and the sentence on how scores came about."""

import numpy as np

from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.report import Predictions, write_report
from fer_jax.report.folds import folds

CLASSES = ("neutral", "happiness", "anger")
NAMES = ("accuracy", "mean_recall", "macro_f1", "nll", "ece")


def test_the_page_shows_every_fold_and_says_how(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    logits = 2.0 * np.eye(3)[labels] + rng.normal(0, 1, (60, 3))
    pooled = classification_metrics(logits, labels, CLASSES, bootstrap=10)
    each = [
        classification_metrics(logits[part], labels[part], CLASSES, bootstrap=0)
        for part in np.arange(60).reshape(2, 30)
    ]
    columns = {name: [scores[name] for scores in each] for name in NAMES}
    results = pooled | {
        "protocol": "Each of 2 folds <by subject> was tested once.",
        "folds": [{"fold": k + 1, "folder": f"fold0{k + 1}"} | scores for k, scores in enumerate(each)],
        "mean": {name: float(np.mean(values)) for name, values in columns.items()},
        "std": {name: float(np.std(values, ddof=1)) for name, values in columns.items()},
    }
    page = write_report(
        tmp_path / "report", results=results, history=[], predictions=Predictions(logits, labels)
    ).read_text()
    assert '<p class="protocol">Each of 2 folds &lt;by subject&gt; was tested once.</p>' in page
    assert "No training log was given" not in page
    section = page[page.index("Fold by fold") :].split("</section>")[0]
    cells = [f"{100 * scores['accuracy']:.1f}" for scores in each]
    places = [section.index(cell) for cell in (*cells, f"{100 * results['mean']['accuracy']:.1f}")]
    assert places == sorted(places)
    assert [section.count(f'href="../fold0{k}/report/index.html"') for k in (1, 2, 3)] == [1, 1, 0]
    assert f"{results['std']['nll']:.6g}" in section


def test_a_run_on_a_split_of_its_own_says_nothing(tmp_path):
    logits, labels = np.eye(3), np.arange(3)
    results = classification_metrics(logits, labels, CLASSES, bootstrap=0)
    page = write_report(tmp_path, results=results, history=[], predictions=Predictions(logits, labels)).read_text()
    assert 'class="protocol"' not in page
    assert "Fold by fold" not in page


def test_measures_of_a_method_without_classes():
    names = {"psnr": "PSNR, dB"}
    rows = [{"fold": k, "folder": f"fold0{k}", "num_examples": 1000 * k, "psnr": 20.0 + k} for k in (1, 2)]
    results = {"measures": names, "num_examples": 3000, "folds": rows, "mean": {"psnr": 21.5}, "std": {"psnr": 0.5}}
    shown = folds(results)
    assert "PSNR, dB" in shown
    assert all(value in shown for value in (">21<", ">22<", ">21.5<", ">0.5<", ">2,000<"))
