"""The speed table comes from the newest run on each device."""

import json

import pytest

from docs import tables
from docs.speed import newest, speed_table
from fer_jax import __version__

VERSIONS = {"fer_jax": __version__, "python": "3.11.7", "jax": "0.10.2", "torch": "2.13.0"}


def run(sections, backend="cpu", when="2030-01-02T03:04:05+00:00", **more):
    facts = {"when": when, "backend": backend, "dtype": "float32", "versions": VERSIONS}
    return facts | {"sections": sections} | more


def row(size, ours, batch=32, kind=None, **others):
    speed = {"fer_jax": ours} | {name.replace("_", ", "): value for name, value in others.items()}
    return {"size": size, "batch": batch, "images_per_second": speed} | ({"kind": kind} if kind else {})


@pytest.fixture
def write(tmp_path):
    def writer(device, *runs):
        name = device.lower().replace(" ", "_").replace(",", "")
        (tmp_path / f"{name}.json").write_text(json.dumps({"device": device, "runs": runs}))
        return tmp_path

    return writer


def test_the_best_of_pytorch_is_what_counts(write):
    trained = {"rows": [row(48, 300.0, PyTorch=250.0, PyTorch_compiled=280.0), row(224, 10.0, PyTorch=16.0)]}
    predicted = {"rows": [row(48, 90.0, kind="prediction", PyTorch=100.0), row(48, 5.0, 1, "prediction", PyTorch=4.0)]}
    text = speed_table(write("Some CPU", run({"train_step": trained, "inference": predicted})))
    assert "Some CPU, float32, jax 0.10.2, torch 2.13.0, 2030-01-02: images per second." in text
    assert "| training | 48x48, 32 | 300 |  | 280 (compiled) | 1.07 | 1.0 | yes |\n" in text
    assert "| training | 224x224, 32 | 10 |  | 16 (eager) | 0.62 | 0.8 | no |\n" in text
    assert "| prediction | 48x48, 32 | 90 |  | 100 (eager) | 0.90 | 1.0 | no |\n" in text
    assert "| prediction | 48x48, 1 | 5 |  | 4 (eager) | 1.25 |  |  |\n" in text


def test_a_run_of_an_earlier_version_is_marked(write):
    old = run({"train_step": {"rows": [row(48, 300.0)]}}, versions={"jax": "0.10.2"})
    assert "earlier version" in speed_table(write("Some CPU", old))


def test_without_pytorch_there_is_nothing_to_compare(write):
    text = speed_table(write("Some CPU", run({"train_step": {"rows": [row(48, 300.0)]}})))
    assert "| training | 48x48, 32 | 300 |  |  |  |  |  |\n" in text


def test_on_an_accelerator_the_program_of_a_run_competes(write):
    trained = {"rows": [row(48, 20000.0, 1024, PyTorch=20000.0)]}
    trained["rows"][0]["images_per_second"]["fer_jax, Feed"] = 30000.0
    text = speed_table(write("Some GPU", run({"train_step": trained}, backend="gpu")))
    assert "| training | 48x48, 1024 | 30,000 |  | 20,000 (eager) | 1.50 | 1.3 | yes |\n" in text


def test_the_newest_run_that_has_a_section_is_shown(write):
    old, new = ({"train_step": {"rows": [row(48, speed)]}} for speed in (100.0, 200.0))
    other = {"inference": {"error": "ended with status -9"}}
    runs = [run(old), run(new), run(other), run(old, quick=True), run(old, quick=False, partial=True)]
    text = speed_table(write("Some CPU", *runs))
    assert "| 200 |" in text
    assert "| 100 |" not in text
    assert newest(runs, "inference") is None


def test_a_block_of_a_page_is_made_from_a_folder(write):
    folder = write("Some CPU", run({"train_step": {"rows": [row(48, 300.0)]}}))
    (folder / "reading.json").write_text('{"few": 4000}')  # of another command
    text = tables.rewrite("<!-- speed: . -->\nold\n<!-- end -->\n", folder)
    assert "old" not in text
    assert "| training | 48x48, 32 | 300 |" in text
