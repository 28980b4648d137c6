"""The scaling to expect is computed from what was measured of a CPU as a whole."""

import json
import sys

import pytest

from benchmarks import scaling


def run(images_per_second, backend="cpu", **more):
    row = {"size": 48, "batch": 128, "images_per_second": {"fer_jax": images_per_second}}
    return {"backend": backend, "sections": {"train_step": {"rows": [row]}}} | more


def test_the_step_of_a_cpu_is_the_newest_that_was_measured_as_a_whole(tmp_path):
    cpu = [run(100.0), run(200.0), run(400.0, quick=True), run(800.0, quick=False, partial=True)]
    (tmp_path / "some_cpu.json").write_text(json.dumps({"device": "Some CPU, 2 cores", "runs": cpu}))
    gpu = {"device": "Some GPU with 8 cores", "runs": [run(30000.0, backend="gpu")]}
    (tmp_path / "some_gpu_with_8_cores.json").write_text(json.dumps(gpu))
    (tmp_path / "seeds.json").write_text("[]")  # of another command
    assert scaling.cpu_steps(tmp_path) == {"measured: Some CPU, 2 cores, 48 px, batch 128": 0.64}


@pytest.mark.parametrize("options", [["--images_per_second=0"], ["--images_per_second=nan"], ["--batch=-1"]])
def test_numbers_that_make_no_sense_are_refused(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling", f"--out={tmp_path / 'new' / 'scaling.json'}", *options])
    assert scaling.main() == 2
    assert "must be above 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sum_of_gradients_that_hides_costs_only_its_latencies():
    reduce = scaling.reduce_seconds(8, 12.5e9)
    assert reduce == 2 * 7 / 8 * 44_720_412 / 12.5e9
    low, high = scaling.efficiency(1.0, reduce, 1e-3)
    assert low == 1 / (1.06 + reduce)
    assert high == 1 / 1.06
