"""The five steps of CONTRIBUTING.md, as they stand there: the method loads, trains, passes its test and is scored."""

import pathlib
import re
import runpy
import shlex

import pytest
from etils import epath

from fer_jax import methods
from fer_jax.config.fields import assign
from fer_jax.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture
def files(tmp_path, monkeypatch) -> dict[str, pathlib.Path]:
    """The files of the steps, written to a folder where the package finds its methods and experiments."""
    written = {}
    for name, code in re.findall(r"```python\n# (\S+)\n(.*?)```", TEXT, re.DOTALL):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(code)
        written[name] = path
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "fer_jax" / "methods")])
    return written


def test_the_five_steps(files, tiny, tmp_path):
    assert re.findall(r"^\*\*(\d)\.", TEXT, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    assert "focal" in methods.names()
    config = runpy.run_path(str(files["experiments/focal.py"]))["get_config"]("smoke")
    small = tiny()  # sizes for a test
    config.model, config.train, config.data = small.model, small.train, small.data
    config.train.max_steps = 2
    (command,) = re.findall(r"^python run\.py .*focal\.py:smoke.*$", TEXT, re.MULTILINE)
    for override in (word for word in shlex.split(command) if word.startswith("--config.")):
        field, value = override.removeprefix("--config.").split("=")
        assign(config, field, float(value))
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert results["experiment"] == "focal"
    assert results["steps"] == 2
    runpy.run_path(str(files["tests/methods/test_focal.py"]))["test_an_easy_example_weighs_less"]()
