"""`python -m benchmarks`: what it runs, what it refuses, and what it keeps."""

import json
import re
import sys

import pytest

from benchmarks import __main__ as command
from benchmarks import convolution, machine, main_job, profile_step, reading, records, roofline
from fer_jax.errors import UserError

HEAD = {"device": "Some CPU, 2 cores", "backend": "cpu", "dtype": "float32", "versions": {"jax": "0.10.2"}}


def test_runs_are_added_one_after_the_other(tmp_path):
    first = records.append(tmp_path, {"train_step": {"rows": []}}, HEAD)
    assert records.append(tmp_path, {"inference": {"rows": []}}, HEAD) == first
    stored = json.loads(first.read_text())
    assert first.name == "some_cpu_2_cores.json"
    assert stored["device"] == "Some CPU, 2 cores"
    assert [list(run["sections"]) for run in stored["runs"]] == [["train_step"], ["inference"]]
    assert {"when", "backend", "dtype", "versions"} <= set(stored["runs"][0])
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize("damage", ['{"device": "Some CPU, 2 cores", "runs": [', '["something else"]'])
def test_a_damaged_file_is_refused_in_one_line_and_not_lost(tmp_path, damage):
    path = tmp_path / "some_cpu_2_cores.json"
    path.write_text(damage)
    with pytest.raises(UserError, match="move it away and run again") as refused:
        records.append(tmp_path, {}, HEAD)
    assert "\n" not in str(refused.value)
    assert path.read_text() == damage


@pytest.mark.parametrize(
    ("options", "quick", "partial"),
    [([], False, False), (["--sizes=224,48"], False, False), (["--sizes=48"], False, True), (["--quick"], True, False)],
)
def test_a_section_alone_says_whether_it_was_whole(options, quick, partial, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "prepare", lambda: None)
    monkeypatch.setattr(machine, "describe", lambda: dict(HEAD))
    monkeypatch.setattr(sys, "argv", ["benchmark", f"--out={tmp_path}", *options])
    records.command_line(
        "inference", "", lambda quick, sizes: {"rows": []}, lambda _: "a table", page=True, sizes=(48, 224)
    )
    (run,) = records.read(tmp_path / "some_cpu_2_cores.json")["runs"]
    assert (run["quick"], run["partial"]) == (quick, partial)
    assert (tmp_path / "inference.md").exists() == (not quick and not partial)


def test_a_misspelt_section_is_refused_with_the_nearest(capsys):
    assert command.main(["--only=train_stepp"]) == 2
    assert "did you mean 'train_step'?" in capsys.readouterr().err
    assert command.main(["--only=,"]) == 2
    assert "names no section" in capsys.readouterr().err
    assert command.main(["--main_job", "--quick"]) == 2
    assert "the main job has no quick form" in capsys.readouterr().err


def test_everything_is_all_that_is_there_but_what_takes_minutes():
    everything = command.chosen("", main_job=False)
    assert {"train_step", "inference", "reading", "streaming"} <= set(everything)
    assert "main_job" not in everything
    assert command.chosen("streaming, inference", main_job=True) == ["streaming", "inference", "main_job"]


def test_one_section_that_fails_costs_no_other(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(command, "describe_in_a_process", lambda: dict(HEAD))

    def measured(name, quick, folder, environment):
        return {"error": "ended with status -9"} if name == "inference" else {"rows": [name]}

    monkeypatch.setattr(command, "in_a_process", measured)
    assert command.run_all(["train_step", "inference", "reading"], True, tmp_path) == 1
    (run,) = records.read(tmp_path / "some_cpu_2_cores.json")["runs"]
    assert run["quick"] is True
    assert run["sections"]["inference"] == {"error": "ended with status -9"}
    assert run["sections"]["reading"] == {"rows": ["reading"]}
    assert "failed: inference" in capfd.readouterr().err


def test_what_was_measured_before_ctrl_c_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "describe_in_a_process", lambda: dict(HEAD))

    def measured(name, quick, folder, environment):
        if name == "inference":
            raise KeyboardInterrupt
        return {"rows": [name]}

    monkeypatch.setattr(command, "in_a_process", measured)
    assert command.run_all(["train_step", "inference", "reading"], True, tmp_path) == 1
    (run,) = records.read(tmp_path / "some_cpu_2_cores.json")["runs"]
    assert run["sections"] == {"train_step": {"rows": ["train_step"]}, "inference": {"error": "interrupted"}}


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "describe_in_a_process", lambda: dict(HEAD))
    monkeypatch.setattr(command, "in_a_process", lambda *_: pytest.fail("it measured"))
    (tmp_path / "file").write_text("")
    assert command.main([f"--out={tmp_path / 'file'}"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_machine_where_jax_does_not_start_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    assert command.main(["--only=reading", f"--out={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: JAX does not start here: ")
    assert "nonsense" in line


@pytest.mark.parametrize("option", ["--repeats=0", "--repeats=-1", "--repeats=many", "--seconds=nan"])
def test_a_number_that_makes_no_sense_is_refused(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", option])
    with pytest.raises(SystemExit):
        records.command_line("inference", "", lambda **_: {}, lambda _: "", repeats=5, seconds=1.0)
    assert "give a number above 0" in capsys.readouterr().err


ALONE = {convolution: "layer", main_job: "section", reading: "measure", roofline: "limits"}


@pytest.mark.parametrize("benchmark", ALONE)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, ALONE[benchmark], lambda *_: pytest.fail("it measured"))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "beside.md").mkdir()
    refused = {"folder.json": "Is a directory", "file/x.json": "Not a directory|File exists"}
    refused |= {"beside.json": r"beside\.md: Is a directory", "table.md": "suffix, .json"}
    for out, says in refused.items():
        with pytest.raises(SystemExit) as ended:
            benchmark.main([f"--out={tmp_path / out}"])
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2
        assert line.startswith("error: ")
        assert re.search(says, line)
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["file"]


@pytest.mark.parametrize(
    ("benchmark", "arguments", "says"),
    [
        (convolution, ["--sizes=0"], "'0': known: 112, 224, 48"),
        (profile_step, ["49"], "invalid choice: 49"),
        (profile_step, ["48", "--top=1e3"], "'1e3': give a number above 0"),
        (reading, ["--out=x.json", "--pictures=0"], "'0': give a number above 0"),
    ],
)
def test_numbers_of_the_others_that_make_no_sense(benchmark, arguments, says, monkeypatch, capsys):
    monkeypatch.setattr(machine, "prepare", lambda: pytest.fail("it began"))
    with pytest.raises(SystemExit) as ended:
        benchmark.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs(tmp_path, monkeypatch):
    """One quick section in its process, from the command line to the file."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert command.main(["--only=reading", "--quick", f"--out={tmp_path}"]) == 0
    (path,) = tmp_path.glob("*.json")
    (run,) = records.read(path)["runs"]
    assert run["backend"] == "cpu"
    assert run["versions"]["fer_jax"]
    assert run["sections"]["reading"]["read"]["all cores"] > 0
