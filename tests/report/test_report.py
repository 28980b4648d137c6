"""The report: complete, escaped, tolerant, quick, and without a trace in matplotlib's global state.

`FER_JAX_REPORT_DIR=/tmp/reports pytest tests/report/test_report.py` keeps the reports to look at.
"""

import base64
import dataclasses
import html.parser
import io
import os
import pathlib
import re
import time

import matplotlib
import numpy as np
import pytest
from PIL import Image

from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.labels import COMPOUND_CODES
from fer_jax.report import Predictions, Profile, Samples, scores, sections, write_report
from fer_jax.report.images import picture
from fer_jax.report.learning import accuracy_chart
from fer_jax.report.markup import percent

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
SHARES = np.array([0.27, 0.25, 0.12, 0.12, 0.11, 0.02, 0.06, 0.05])


def faces(labels, rng, channels=1, size=48):
    """Cartoon faces uint8 [N, size, size, channels]: the label bends the mouth and opens the eyes."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    images = np.empty((len(labels), size, size, channels), np.uint8)
    for n, label in enumerate(labels):
        dx, dy = rng.normal(0, 0.03, 2)
        u, v = x - dx, y - dy
        skin = rng.uniform(0.45, 0.85)
        picture = rng.uniform(0.1, 0.4) + 0.2 * y + np.zeros_like(x)
        picture[u**2 / 0.10 + v**2 / 0.17 < 1] = skin
        picture[(u**2 / 0.11 + (v + 0.1) ** 2 / 0.12 < 1) & (v < -0.25)] = 0.15
        opening = (0.004, 0.003, 0.012, 0.003, 0.004, 0.002, 0.012, 0.003)[label % 8]
        for side in (-0.13, 0.13):
            picture[(u - side) ** 2 / 0.006 + (v + 0.08) ** 2 / opening < 1] = 0.1
        bend = (0.0, 2.4, 0.0, -2.0, -1.0, -1.4, -0.6, 0.8)[label % 8]
        mouth = np.abs(v - 0.2 + bend * (u**2 - 0.01)) < (0.05 if label % 8 in (2, 6) else 0.02)
        picture[mouth & (np.abs(u) < 0.15)] = 0.12
        picture = np.clip(picture + rng.normal(0, 0.03, picture.shape), 0, 1)
        tint = np.array([1.0, 0.86, 0.76]) if channels == 3 else np.ones(1)
        images[n] = np.round(255 * picture[..., None] * tint)
    return images


def predict(labels, classes, rng, skill=5.5):
    """Logits of a model that mixes some classes up more than others and is a little too sure of itself."""
    mean = np.eye(classes) * skill
    mean[6 % classes, 3 % classes] = 0.75 * skill
    mean[7 % classes, 0] = 0.8 * skill
    mean[3 % classes, 0] = 0.6 * skill
    return (mean[labels] + rng.gumbel(0, 1.4, (len(labels), classes))).astype(np.float32)


def training_log(steps=6000, seed=0):
    rng = np.random.default_rng(seed)
    log = []
    for step in range(20, steps + 1, 20):
        progress, epoch = 1 - np.exp(-step / 1500), step / 225
        noise = rng.normal(0, 1, 8)
        terms = {
            "cross_entropy": 1.95 - 1.3 * progress + 0.06 * noise[0],
            "compactness": 3.1 * np.exp(-step / 3000) * np.exp(0.05 * noise[1]),
            "balance": 0.4 * np.exp(-step / 900) * np.exp(0.2 * noise[2]) + 0.004,
            "distribution": 0.2 * np.exp(-step / 2200) * np.exp(0.1 * noise[3]),
        }
        log.append(
            {"kind": "train", "step": step, "epoch": epoch, "loss/total": sum(terms.values())}
            | {f"loss/{name}": float(value) for name, value in terms.items()}
            | {
                "accuracy": float(0.25 + 0.6 * progress + 0.02 * noise[4]),
                "learning_rate": 1e-3 * 0.5 * (1 + np.cos(np.pi * step / steps)),
                "grad_norm": float(2 * np.exp(0.2 * noise[5])),
                "update_norm": float(0.01 * np.exp(0.2 * noise[6])),
                "monitor/saturated_edges": float(0.02 + 0.3 * progress**2),
            }
        )
        if step % 300 == 0:
            reached = 0.3 + 0.47 * progress - 0.02 * (step / steps) ** 3 + 0.008 * noise[7]
            log.append(
                {"kind": "validation", "step": step, "epoch": epoch, "accuracy": reached, "nll": 1.0}
                | {"mean_recall": reached - 0.09, "ece": 0.05}
            )
    return log


def make(classes=EMOTIONS, count=3589, channels=1, size=48, seed=0):
    """Everything that `write_report` is given after training."""
    rng = np.random.default_rng(seed)
    shares = np.resize(SHARES, len(classes))
    labels = rng.choice(len(classes), count, p=shares / shares.sum()).astype(np.int32)
    logits = predict(labels, len(classes), rng)
    votes = np.eye(len(classes))[labels] * 0.7 + 0.3 / len(classes)
    history = training_log()
    best = max((line for line in history if line["kind"] == "validation"), key=lambda line: line["accuracy"])
    results = {
        "experiment": "fdrl",
        "variant": "ferplus",
        "dataset": "ferplus",
        "split": "private_test",
        **classification_metrics(logits, labels, classes, votes=votes),
        "selection": {
            "rule": "best_validation",
            "metric": "accuracy",
            "on": "public_test",
            "best_step": best["step"],
            "best_validation": {
                "accuracy": best["accuracy"],
                "mean_recall": best["mean_recall"],
                "nll": None,
            },
            "last": {"step": 6000, "validation": {"accuracy": 0.74}, "test": {"accuracy": 0.771}},
        },
        "steps": 6000,
        "epochs": 26.7,
        "seed": 0,
        "params": 11_781_832,
        "params_sha256": "9f2c4d7e" * 8,
        "images_per_second": 4312.7,
        "wall_seconds": 5130.2,
        "device": "1 x NVIDIA A100",
        "versions": {"jax": "0.10.0", "flax": "0.12.1", "numpy": "2.4.6"},
        "config": {"seed": 0, "optimizer": {"name": "adam", "learning_rate": 1e-3, "betas": [0.9, 0.999]}},
    }
    importance = 1 / 9 + 0.02 * np.sin(np.arange(9) * (1 + labels[:, None])) + rng.normal(0, 0.01, (count, 9))
    bank = faces(np.arange(12 * len(classes)) % len(classes), rng, channels, size)
    images = bank[labels + len(classes) * rng.integers(0, 12, count)]
    training = faces(np.arange(24) % len(classes), rng, channels, size)
    return {
        "results": results,
        "history": history,
        "predictions": Predictions(logits, labels, images),
        "samples": Samples(training, np.arange(24) % len(classes), training[:, :, ::-1] // 2 + 60, [training[:2]]),
        "profiles": {"importance": Profile("Importance of each latent feature", importance)},
    }


class Page(html.parser.HTMLParser):
    """What a browser would find: pictures, text, and whether the tags close in order."""

    def __init__(self, path: pathlib.Path | None = None, text: str = ""):
        super().__init__()
        self.images, self.text, self.links, self.tables = [], "", [], 0
        self._open = []
        self.feed(path.read_text(encoding="utf-8") if path else text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "meta"):
            self._open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.tables += tag == "table"
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += data


def opened(image):
    """The picture of an <img>, whose bytes are inside."""
    return Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))


@pytest.fixture
def folder(tmp_path, request):
    kept = os.environ.get("FER_JAX_REPORT_DIR")
    return pathlib.Path(kept, request.node.name) if kept else tmp_path / "report"


def test_a_whole_report(folder):
    """FER+'s test split: everything is there, every picture exists and says what it shows, in under 6 s."""
    given = make()
    before = dict(matplotlib.rcParams)
    start = time.process_time()  # whatever else the machine is doing
    index = write_report(folder, **given)
    assert time.process_time() - start < 6.0
    assert dict(matplotlib.rcParams) == before
    page = Page(index)
    assert index == folder / "index.html"
    for image in page.images:
        assert image["alt"]
        if image["class"] == "chart":  # two dots per CSS pixel
            assert opened(image).size == (2 * int(image["width"]), 2 * int(image["height"]))
    assert set(page.links) == {image["src"] for image in page.images}  # nothing from elsewhere: it is one file
    assert all(link.startswith("data:image/png") for link in page.links)
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    assert len(index.read_bytes()) < 3_000_000
    assert sum(image["alt"].startswith("Logged") for image in page.images) >= 4
    assert sum("predicted" in image["alt"] for image in page.images) == 24
    assert sum("as stored" in image["alt"] for image in page.images) == 24
    scores = given["results"]
    for name, *row in zip(
        EMOTIONS, *(scores[score] for score in ("recall", "precision", "f1", "support")), strict=True
    ):
        assert "".join([name, *map(percent, row[:3]), f"{row[3]:,}"]) in page.text
    for score in ("accuracy", "mean_recall", "macro_f1"):
        assert f"{100 * scores[score]:.1f}" in page.text
        assert f"interval {100 * scores[f'{score}_interval'][0]:.1f}" in page.text
    for words in (
        "fdrl",
        "ferplus private_test",
        "11.78 M parameters",
        "1 h 25",
        "9f2c4d7e",
        "optimizer.betas",
    ):
        assert words in page.text.replace("\u202f", " ")


def test_the_boldest_mistakes_come_first(folder):
    logits = np.array([[3, 0], [0, 5], [0, 9], [4, 0], [0, 2]], np.float32)
    images = faces(np.zeros(5, int), np.random.default_rng(0))
    predictions = Predictions(logits, np.array([0, 0, 0, 1, 0]), images, [f"{n}.jpg" for n in range(5)])
    results = classification_metrics(logits, predictions.labels, ["calm", "glad"])
    page = Page(write_report(folder, results=results, history=[], predictions=predictions))
    shown = [image["alt"] for image in page.images if "predicted" in image["alt"]]
    assert [alt.split(":")[0] for alt in shown] == ["Image 2", "Image 1", "Image 3", "Image 4"]
    assert shown[2] == f"Image 3: labeled glad, predicted calm with {percent(1 / (1 + np.exp(-4)))}"
    assert re.findall(r"\d\.jpg", page.text) == ["2.jpg", "1.jpg", "3.jpg", "4.jpg"]


def test_colour_images_and_many_long_names(folder):
    """RAF-DB's compound part: 11 classes, photographs larger than a tile, charts of parts and of affect."""
    classes = list(COMPOUND_CODES["rafdb"].values())
    given = make(classes, count=400, channels=3, size=100) | {"history": [], "profiles": {}}
    given["predictions"] = dataclasses.replace(given["predictions"], affect=np.zeros((400, 2)))
    page = Page(write_report(folder, **given))
    assert all(name in page.text for name in classes)
    assert "have all parts right" in page.text
    assert "Predicted valence and arousal by class" in [image["alt"] for image in page.images]
    sample = opened(next(image for image in page.images if "as stored" in image["alt"]))
    assert (sample.mode, sample.size) == ("RGB", (100, 100))


def test_parts_of_compound_expressions_are_counted():
    logits = np.eye(2)[[0, 0, 1, 1, 1]]
    results = classification_metrics(logits, np.array([0, 0, 0, 1, 1]), ["happily surprised", "sadly fearful"])
    parts = sections.classes(results).partition(">Parts<")[2]
    cells = [int(count) for count in re.findall(r"<td style[^>]*>(\d+)", parts)]
    assert cells == [2, 2, 1, 0, 0, 1, 0, 0, 2, 0, 0, 2]  # happiness, surprise, sadness, anger, disgust, fear
    assert f"{percent(0.8)} have all parts right" in parts


def test_names_are_escaped(folder):
    given = make(["<script>alert(1)</script>", 'a "quoted" & $odd$ name'], count=60) | {"history": []}
    del given["samples"]
    given["results"] |= {"experiment": "<b>bold</b>", "device": "</style>", "split": "a&b"}
    given["profiles"] = {"../x": Profile("<i>title</i>", np.zeros((60, 3)))}
    index = write_report(folder, **given)
    written = index.read_text()
    for raw in ("<script", "<b>bold", "<i>title", "</style></span>", "a&b"):
        assert raw not in written
    page = Page(index)
    for text in (
        "<script>alert(1)</script>",
        'a "quoted" & $odd$ name',
        "<b>bold</b>",
        "<i>title</i>",
        "a&b",
    ):
        assert text in page.text


def test_evaluation_alone_without_mistakes(folder):
    """No history, images or mistakes, and a class without examples."""
    labels = np.array([0, 1, 1, 0])
    predictions = Predictions(10 * np.eye(3, dtype=np.float32)[labels], labels)
    results = classification_metrics(predictions.logits, labels, EMOTIONS[:3], bootstrap=0)
    results |= {"plain": {"accuracy": 0.75, "accuracy_interval": [0.5, 1.0]}, "coverage": 0.625}
    page = Page(write_report(folder, results=results, history=[], predictions=predictions, samples=None))
    assert "4 of 4 images" in page.text
    assert "No training log was given" in page.text
    assert "without examples are left out: surprise" in page.text
    assert "single view" in page.text
    assert "75.0" in page.text
    assert "62.5" in page.text
    assert not page.images
    assert re.search(r"surprise\s*none\s*none\s*none\s*0", page.text)  # recall, precision, F1, examples


def test_labels_of_a_short_axis_in_percent_differ():
    figure = accuracy_chart({"train": (np.arange(2), np.array([0.161, 0.164]))}, {})
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(labels)) == len(labels) > 2


def test_odd_histories(folder):
    """Not a number, terms at zero or below, an unknown step selected."""
    given = make(count=50) | {"samples": None, "profiles": {}}
    given["results"]["selection"] = {"rule": "best_on_test", "best_step": 123, "last": {}}
    given["history"] = [
        {"kind": "train", "step": 1, "epoch": 0.5, "loss/total": 1.0, "loss/below": -1.0, "accuracy": float("nan")},
        {"kind": "train", "step": 2, "epoch": 1.0, "loss/total": 2.0, "loss/zero": 0.0, "loss/below": -2.0, "x": None},
        {"kind": "validation", "step": 2, "epoch": 1.0, "accuracy": 0.5},
    ]
    page = Page(write_report(folder, **given))
    alts = [image["alt"] for image in page.images]
    for curve in ("total from 1 to 2", "loss/zero from 0 to 0", "loss/below from -1 to -2"):
        assert any(alt.endswith(curve) for alt in alts)
    assert "selected on the test split itself" in page.text


@pytest.mark.parametrize("features", [24, 300])
def test_profiles_of_any_width(folder, features):
    given = make(count=80) | {"samples": None, "history": []}
    values = np.random.default_rng(0).normal(size=(80, features)).astype(np.float32)
    given["profiles"] = {"a": Profile("first", values), "b": Profile("second", np.zeros((80, features)))}
    page = Page(write_report(folder, **given))
    assert page.tables == 1 + 1 + 4 + 2 + 3  # confusion, classes, profiles, confidence, details


def test_images_keep_their_pixels():
    image = np.random.default_rng(0).integers(0, 256, (48, 40, 1), dtype=np.uint8)
    (small,) = Page(text=picture(image, "a face")).images
    np.testing.assert_array_equal(np.asarray(opened(small)), image[..., 0])
    (large,) = Page(text=picture(np.zeros((1000, 500, 3), np.uint8), "a photo")).images
    assert opened(large).size == (168, 336)


def sweep(kind):
    """The results of three folds or seeds, and the scores of each."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    logits = 2.0 * np.eye(3)[labels] + rng.normal(0, 1, (90, 3))
    each = [
        {kind: n + 1, "folder": f"{kind}0{n + 1}"}
        | classification_metrics(logits[part], labels[part], EMOTIONS[:3], bootstrap=0)
        for n, part in enumerate(np.arange(90).reshape(3, 30))
    ]
    columns = {name: np.array([scores[name] for scores in each]) for name in ("accuracy", "mean_recall", "nll")}
    mean = {name: float(values.mean()) for name, values in columns.items()}
    summary = {
        "mean": mean,
        "std": {name: float(values.std(ddof=1)) for name, values in columns.items()},
        "interval": {name: [value - 0.2, value + 0.3] for name, value in mean.items()},
        "protocol": "Each of 3 parts <by subject> was tested once.",
    }
    pooled = classification_metrics(logits, labels, EMOTIONS[:3], bootstrap=10)
    return pooled | summary | {f"{kind}s": each}, Predictions(logits, labels)


@pytest.mark.parametrize("kind", ["fold", "seed"])
def test_a_sweep_has_a_row_and_a_link_for_each_of_its_runs(folder, kind):
    results, predictions = sweep(kind)
    given = predictions if kind == "fold" else None
    page = Page(write_report(folder, results=results, history=[], predictions=given))
    links = [link for link in page.links if link.startswith("../")]
    assert links == [f"../{kind}0{number}/report/index.html" for number in (1, 2, 3)]
    for scores_of in (*results[f"{kind}s"], results["mean"], results["std"]):
        assert f"{100 * scores_of['accuracy']:.2f}" in page.text
        assert f"{scores_of['nll']:.3f}" in page.text
    if kind == "seed":
        assert f"{100 * (results['mean']['accuracy'] - 0.2):.1f} to" in page.text
        assert len(page.images) == 0
    assert results["protocol"] in page.text


def test_measures_of_a_method_without_classes(folder):
    names = {"psnr": "PSNR, dB", "ssim": "SSIM"}
    results = {"measures": names, "classes": ["a"], "num_examples": 3000, "psnr": 31.25, "ssim": 0.9}
    history = [{"kind": "validation", "step": step, "epoch": step, "psnr": 20.0 + step} for step in (1, 2)]
    page = Page(write_report(folder, results=results, history=history, predictions=None))
    assert "31.250" in page.text
    assert [image["alt"].split(": ")[1] for image in page.images] == ["validation/psnr from 21 to 22"]
    rows = [
        {"fold": k, "folder": f"fold0{k}", "num_examples": 1000 * k, "psnr": 20.0 + k, "ssim": None} for k in (1, 2)
    ]
    mean, std = {"psnr": 21.5, "ssim": None}, {"psnr": 0.5, "ssim": None}
    shown = scores.sweep(results | {"folds": rows, "mean": mean, "std": std})
    assert "PSNR, dB" in shown
    assert all(value in shown for value in (">21.000<", ">22.000<", ">21.500<", ">0.500<", ">2,000<"))


def test_degraded_images_have_a_row_each():
    found = {"jpeg:5": {"accuracy": 0.5, "accuracy_lost": 0.25, "mean_recall": 0.4, "nll": 1.5}}
    shown = scores.degraded({"accuracy": 0.75, "mean_recall": 0.6, "nll": 1.0, "degraded": found})
    assert all(value in shown for value in ("original", "jpeg:5", percent(0.75), percent(0.5), "25.0", "1.500"))
    assert scores.degraded({"accuracy": 1.0}) == ""
