"""The harness knows methods by their contract alone: no method's name, and no question by an optional name."""

import ast
import pathlib
import re

import pytest

import fer_jax
from fer_jax import methods

ROOT = pathlib.Path(fer_jax.__file__).parent
OUTSIDE = sorted(p for p in ROOT.rglob("*.py") if ROOT / "methods" not in p.parents)
HARNESS = [p for p in OUTSIDE if p.relative_to(ROOT).parts[0] not in ("nn", "faces", "words")]
# English words or names of Flax and NumPy as well: looked for as values and imports only.
ENGLISH = {"baseline", "compact", "fan"}
ACRONYMS = {"fan"}


def names_in(source: str) -> set[str]:
    """The names of methods that stand in some code, its comments and its texts; an experiment may be an example."""
    source, found = re.sub(r"experiments/\w+\.py|runs/\w+/\w+", "", source), set()
    for name in methods.names():
        if name not in ENGLISH and re.search(rf"\b{name}\b", source, re.IGNORECASE):
            found.add(name)
        if name in ACRONYMS and re.search(rf"\b{name.upper()}\b", source):
            found.add(name)
        if re.search(rf"methods\.{name}\b|methods import [^\n]*\b{name}\b", source):
            found.add(name)
    values = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return found | (values & ENGLISH)


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_method_is_named_outside_of_methods(path):
    assert not names_in(path.read_text())


def test_a_name_would_be_found():
    assert names_in("x = 1  # as FDRL does") == {"fdrl"}
    assert names_in("if method == 'baseline': pass") == {"baseline"}
    assert names_in("from fer_jax.methods import compact") == {"compact"}
    assert not names_in("@nn.compact\ndef f(): 'the baseline of a chart'")


def optional_questions(source: str) -> list[str]:
    """hasattr(...) and getattr(...) whose object is a method, a model or a task."""
    calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    asked = [ast.unparse(n.args[0]) for n in calls if ast.unparse(n.func) in ("hasattr", "getattr")]
    return [what for what in asked if re.search(r"method|model|task|contract|strategy", what, re.IGNORECASE)]


@pytest.mark.parametrize("path", HARNESS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_question_is_asked_by_an_optional_name(path):
    assert not optional_questions(path.read_text())


def test_a_question_would_be_found():
    assert optional_questions("hasattr(setup.task.method, 'SCORES')") == ["setup.task.method"]
    assert not optional_questions("getattr(os, 'memfd_create', None)")


@pytest.mark.parametrize("name", methods.names())
def test_what_a_method_gives_fits_its_contract(name):
    method = methods.load(name)
    assert method.weights
    assert all(isinstance(weight, float) for weight in method.weights.values())
    assert method.takes in ("image", "frames")
