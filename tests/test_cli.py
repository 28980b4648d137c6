"""The command line: help, the resolved config, overridden fields, and commands that are the same."""

import os
import pathlib
import subprocess
import sys

import pytest

from fer_jax import methods
from fer_jax.config.fields import default_config, fields_of, leaves
from fer_jax.config.files import experiments, load_config, override, read_experiment
from fer_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_help_lists_commands_experiments_and_variants(run_here):
    shown = run_here("--help")
    assert shown.returncode == 0
    for expected in ("train", "evaluate", "--workdir", "experiments/fdrl.py", "fer2013_short", "psr_sr", "cutmix"):
        assert expected in shown.stdout


def test_help_and_mistakes_do_not_wait_for_jax(tmp_path):
    program = "import sys; from fer_jax.cli import main; main(sys.argv[1:]); sys.exit('jax' in sys.modules)"
    for arguments in (["--help"], ["--epochs=3"], ["--config=experiments/fdlr.py"]):
        subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("method", methods.names())
def test_every_field_has_its_line_of_help(method, run_here):
    name = {"compact": "fer2013_fast"}.get(method, method)
    shown = run_here(f"--config=experiments/{name}.py", "--help").stdout
    for path, field in fields_of(method).items():
        assert field.help, path
        (line,) = [line for line in shown.splitlines() if line.startswith(f"  config.{path} = ")]
        assert field.help in line
        assert all(choice in line for choice in field.choices)


def test_the_resolved_config(run_here):
    shown = run_here("--config=experiments/fdrl.py:smoke", "--config.train.epochs=3", "--print_config").stdout
    assert "config.train.epochs = 3.0" in shown
    assert "config.data.builder.train = 280" in shown
    assert "config.variant = 'smoke'" in shown


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("data.exclude", "black,leaked", ("black", "leaked")),
        ("data.exclude", "('black',)", ("black",)),
        ("data.exclude", "", ()),
        ("data.resolutions", "((0.5,32),)", ((0.5, 32),)),
        ("train.epochs", "3", 3.0),
        ("evaluation.report", "false", False),
        ("fold", "3", "3"),
        ("seed", "-1", -1),
    ],
)
def test_text_becomes_the_type_of_the_field(field, text, value):
    config = default_config("", "", "baseline")
    assert override(config, [(field, text)]) == {field: value}
    assert dict(leaves(config, ()))[field] == value


def test_options_of_another_data_set_are_dropped():
    config = default_config("", "", "baseline")
    config.data.dataset, config.data.builder = "synthetic_faces/basic", {"seed": 0, "size": 64}
    override(config, [("data.dataset", "image_folder/mine"), ("data.builder.size", "48")])
    assert dict(config.data.builder) == {"size": 48}
    override(config, [("data.dataset", "image_folder/others")])
    assert dict(config.data.builder) == {"size": 48}


def test_text_that_the_console_cannot_print_is_escaped(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.py").write_text('"""Gesichter ö"""\ndef get_config(v="a"): ...')
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "fer_jax", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert r"Gesichter \xf6" in done.stdout


def test_experiments_run_from_any_folder(tmp_path):
    """A file that does not exist in the folder is that of the installation."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fer_jax", "train", "--config=experiments/fdrl.py:smoke", "--print_config"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "config.experiment = 'fdrl'" in done.stdout


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def get_config(:", "SyntaxError.*line 1"),
        ("\nimport of_tomorrow", "line 2: .*of_tomorrow"),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("import sys\nsys.exit(3)", "line 2: SystemExit: 3"),
        ("def get_config():\n    return 5", "get_config does not return a config"),
        ("\0", "source code"),
    ],
)
def test_a_mistake_in_an_experiment_file_is_one_line_that_says_where(code, says, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(UserError, match=rf"mine\.py.*{says}") as caught:
        load_config(str(path))
    assert "\n" not in str(caught.value)


def test_every_experiment_names_its_variants():
    for name in experiments():
        module = read_experiment(ROOT / name)
        assert module["VARIANTS"]
        assert module["__doc__"]
