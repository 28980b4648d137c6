"""docs/colab.ipynb: its commands exist, no outputs are kept, and all of its cells do what they say."""

import importlib.util
import json
import os
import pathlib
import re
import shlex
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from fer_jax import cli
from fer_jax.config.files import load_config, override

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOK = nbformat.read(ROOT / "docs" / "colab.ipynb", as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


def test_every_command_exists():
    text = "\n".join(cell.source for cell in CODE).replace("\\\n", " ")
    commands = [shlex.split(line) for line in re.findall(r"^ *!(.*)", text, re.MULTILINE)]
    assert {command[0] for command in commands} == {"fer-jax", "python"}
    for program, *words in commands:
        if program == "python":
            assert importlib.util.find_spec(words[1])
            continue
        options, overrides = cli._parse(words)
        if options.config:
            override(load_config(options.config), overrides)
    assert not any(cell.outputs or cell.execution_count for cell in CODE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path):
    command = tmp_path / "bin" / "fer-jax"  # of this checkout, installed or not
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fer_jax "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join(map(str, (command.parent, pathlib.Path(sys.executable).parent, os.environ["PATH"])))
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": str(tmp_path / "data"), "XLA_FLAGS": ""}
    client = NotebookClient(NOTEBOOK, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=os.environ | own | {"JAX_PLATFORMS": "cpu"})  # raises for a cell that fails
    results = json.loads((tmp_path / "runs" / "notebook" / "results.json").read_text())
    assert results["accuracy"] > 0.5
    report, *_, predicted, explained = ([output.get("data", {}) for output in cell.outputs] for cell in CODE[2:])
    assert "The scored weights" in report[0]["text/html"]
    assert any("image/png" in data for data in predicted)
    assert sum("image/png" in data for data in explained) == 6
