"""The shape of the code: imports point one way, and files, functions and parameter lists stay short."""

import ast
import graphlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fer_jax"
# Rooms from the bottom to the top. A file may import from its own layer and from lower ones, never from a higher one.
LAYERS = (
    ("errors", "labels", "randomness", "storage", "locks", "parsing"),
    ("faces",),
    ("nn",),
    ("engine", "methods", "data", "words"),
    ("config",),
    ("runs", "evaluation", "report", "inference", "weights"),
    ("training",),
    ("sweeps",),
    ("cli", "__main__", ""),  # "" is fer_jax/__init__.py
)
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
LONGEST_FILE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 80, 8  # lines, lines, names besides self


def arrows(path: pathlib.Path) -> set[tuple[str, str]]:
    """(room of the file, room it imports) for each import of fer_jax, also of those inside functions."""
    own = path.relative_to(PACKAGE).with_suffix("").parts[0].removesuffix("__init__")
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "fer_jax":
            modules += [f"fer_jax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
    rooms = {module.split(".")[1] for module in modules if module.startswith("fer_jax.")}
    return {(own, room) for room in rooms if room != "__version__"}


ARROWS = {path: arrows(path) for path in sorted(PACKAGE.rglob("*.py"))}


def test_imports_point_from_higher_rooms_to_lower_ones():
    wrong = [
        f"{path.relative_to(ROOT)}: {own} imports {room}"
        for path, found in ARROWS.items()
        for own, room in sorted(found)
        if HEIGHT[own] < HEIGHT[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_rooms_import_each_other():
    graph: dict[str, set[str]] = {}
    for own, room in set().union(*ARROWS.values()):
        if own != room:
            graph.setdefault(own, set()).add(room)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_files_functions_and_parameter_lists_are_short():
    long = []
    others = (
        path for folder in ("experiments", "benchmarks", "tfds_builders") for path in (ROOT / folder).rglob("*.py")
    )
    for path in (*ARROWS, *sorted(others)):
        text, name = path.read_text(), path.relative_to(ROOT)
        if (lines := text.count("\n")) > LONGEST_FILE:
            long.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION:
                long.append(f"{name}: {node.name} has {lines} lines")
            parameters = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            if (count := len(parameters - {"self", "cls"})) > MOST_PARAMETERS:
                long.append(f"{name}: {node.name} has {count} parameters")
    assert not long, "\n".join(long)
