"""The harness knows methods by their contract alone: no method's name, and no question by an optional name."""

import ast
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fer_jax
from fer_jax import methods

ROOT = pathlib.Path(fer_jax.__file__).parent
OUTSIDE = sorted(p for p in ROOT.rglob("*.py") if ROOT / "methods" not in p.parents)
HARNESS = [p for p in OUTSIDE if p.relative_to(ROOT).parts[0] not in ("nn", "faces", "words")]
# English words or names of Flax and NumPy as well: looked for as values and imports only.
ENGLISH = {"baseline", "compact", "compound", "fan", "geometry"}
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


def test_no_method_is_named_outside_of_methods():
    assert not {path: names for path in OUTSIDE if (names := names_in(path.read_text()))}


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


def test_no_question_is_asked_by_an_optional_name():
    assert not {path: asked for path in HARNESS if (asked := optional_questions(path.read_text()))}


def test_a_question_would_be_found():
    assert optional_questions("hasattr(setup.task.method, 'SCORES')") == ["setup.task.method"]
    assert not optional_questions("getattr(os, 'memfd_create', None)")


RESNET = dict(num_classes=3, depth=6, width=4, stem="small")
# method -> the fields of a small model; one that predicts no classes has no classifier
SMALL = {
    "acnn": dict(num_classes=3, width=4, cut="conv2_1", patch=3, patch_features=4, global_features=4, hidden=8),
    "baseline": RESNET,
    "compact": dict(num_classes=3, stem_width=4, widths=(4, 4, 8), convolutions=1),
    "compound": RESNET | dict(table=((0.0,) * 6, (1.0,) + (0.0,) * 5, (1.0, 0.5) + (0.0,) * 4)),
    "fan": RESNET,
    "fdrl": RESNET,
    "geometry": dict(num_classes=3, components=4, support=5),
    "geometry_sequences": dict(num_classes=3, rounds=4, support=5),
    "psr": dict(num_classes=3, width=2, sep_pos=6, last="pool2", sr_blocks=1, sr_width=4, hidden=8),
    "rul": RESNET,
    "word2vec": RESNET | dict(class_vectors=((1.0, 0.0), (0.6, 0.8), (0.0, 1.0))),
}


@pytest.mark.parametrize("name", [n for n in methods.names() if not methods.load(n).measures])
def test_the_logits_are_those_of_the_features(name):
    model = methods.load(name).model(**SMALL[name])
    rng = np.random.default_rng(0)
    batch = {"image": rng.normal(size=(2, 32, 32, 3)), "frames": rng.normal(size=(2, 2, 32, 32, 3))}
    points = (2, 68) if methods.load(name).takes == "frames" else (68,) if methods.load(name).fit else (24,)
    batch |= {"points": rng.uniform(0, 32, (2, *points, 2)), "frame_mask": np.array([[True, True], [True, False]])}
    batch = {key: jnp.asarray(value, bool if key == "frame_mask" else jnp.float32) for key, value in batch.items()}

    @jax.jit
    def both():
        variables = model.init(jax.random.key(0), batch, train=False)
        features, aux = model.apply(variables, batch, train=False, method="embed")
        logits = model.apply(variables, features, method="classify")
        return logits, aux["maps"].get("last"), model.apply(variables, batch, train=False)[0]

    logits, last, whole = both()
    np.testing.assert_allclose(logits, whole, rtol=1e-6)
    assert methods.load(name).fit or last.ndim == (5 if name == "fan" else 4)
