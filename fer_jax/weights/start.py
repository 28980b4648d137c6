"""The weights that a run starts from: `config.init_from`, published weight files or the models of other runs.

Parameters and batch statistics are loaded; whatever else a method keeps (centers, relabeled targets) belongs to the
data it has seen and starts afresh. Each parameter is loaded, or kept at init for a reason; each weight of a source is
used, or ignored for a reason; anything else is refused. `config.init_ignore` lists regular expressions: a parameter
whose name contains one stays at init, and a weight whose name contains one needs no place in the model.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from fer_jax import methods
from fer_jax.config.fields import Config, config_from
from fer_jax.engine.mesh import put_replicated
from fer_jax.errors import UserError, differences, nearest
from fer_jax.inference import trained
from fer_jax.parsing import table_rows
from fer_jax.runs.checkpoint import tree_sha256
from fer_jax.runs.model_file import is_model
from fer_jax.storage import in_bucket, reachable
from fer_jax.weights.files import read_weights
from fer_jax.weights.networks import Match, Shapes, match, part_of, place, short

ClassPaths = Callable[[Sequence[str]], Collection[str]]
LOADED = ("params", "batch_stats")  # collections that a run takes from another


@dataclasses.dataclass
class Start:
    """The weights to start from.

    Attributes:
        values: float32 arrays by path with the collection.
        account: what was loaded from where, kept at init and ignored, as plain JSON.
    """

    values: dict[str, np.ndarray]
    account: dict[str, Any]

    def fill(self, variables: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
        """Returns variables ({collection: tree}) with these values in place of their own, in buffers of their own."""
        flat = flax.traverse_util.flatten_dict(variables, sep="/", keep_empty_nodes=True)
        values = jax.tree.map(jnp.copy, put_replicated(mesh, self.values))  # the train step donates its buffers
        return flax.traverse_util.unflatten_dict(flat | values, sep="/")

    def describe(self) -> str:
        """Returns the account in a few lines."""
        lines = []
        for source in self.account["sources"]:
            lines += [
                f"  start  {source['path']} ({source['kind']}, sha256 {source['sha256'][:12]}...): {source['holds']}",
                f"           loaded        {_counted(source['loaded'])}",
                *(f"           ignored       {_counted(n)}: {why}" for why, n in source["ignored"].items()),
            ]
        kept = self.account["kept_at_init"].items()
        return "\n".join(lines + [f"           kept at init  {_counted(n)}: {why}" for why, n in kept])


def read_start(config: Config, shapes: Shapes, class_paths: ClassPaths) -> Start | None:
    """Reads `config.init_from` and finds a place for all of it; None if the run starts from scratch.

    Args:
        config: of the run.
        shapes: of its model's parameters and batch statistics, by path with the collection (`flat_weights`).
        class_paths: from the class names of another run to the paths of `shapes` that mean other classes there.

    Raises:
        UserError: if a source cannot be read or does not fit, if two sources fill the same parameter, or if an
            expression of `config.init_ignore` matches no name.
    """
    ignore, given = config.init_ignore, config.init_from
    # A path that exists may have commas; of several, such a path is put in quotes, as in CSV.
    is_one = given and not in_bucket(given) and epath.Path(given).expanduser().exists()
    listed = table_rows([given], "config.init_from", "put a path in quotes", skipinitialspace=True)
    paths = [given] if is_one else next(listed, (1, []))[1]
    if not all(path.strip() for path in paths):
        raise UserError(f"config.init_from={given}: a path is missing beside a comma; '' starts from scratch")
    if not paths:
        if ignore:
            raise UserError(f"config.init_ignore={ignore} has no effect without config.init_from")
        return None
    values: dict[str, np.ndarray] = {}
    kept: dict[str, str] = {}
    sources, names = [], [short(path) for path in shapes]
    for path in map(str.strip, paths):
        there = reachable(path, "config.init_from")
        if there.is_dir() or is_model(there):
            kind, (found, sha256) = "run", _from_run(path, config, shapes, class_paths)
        else:
            file = read_weights(path)
            found = match(file, shapes, methods.load(config.method).published, ignore)
            kind, sha256 = file.kind, file.sha256
        if twice := sorted(found.values.keys() & values.keys()):
            raise UserError(f"config.init_from: two sources fill {short(twice[0])}: give one of them")
        values |= found.values
        kept |= found.kept
        names += found.ignored
        loaded = dict(collections.Counter(map(_top, found.values)))
        account = {"path": path, "kind": kind, "sha256": sha256, "holds": found.title, "loaded": loaded}
        sources.append(account | {"ignored": _grouped(found.ignored)})
    for expression in ignore:
        if not any(re.search(expression, name) for name in names):
            raise UserError(f"config.init_ignore: '{expression}' matches no name; {nearest(expression, names)}")
    rest = {short(path): kept.get(path, "not in the source") for path in shapes if path not in values}
    return Start(values, {"sources": sources, "kept_at_init": _grouped(rest)})


def flat_weights(params: Any, collections_: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters and batch statistics by path with the collection."""
    tree = {name: tree for name, tree in {"params": params, **collections_}.items() if name in LOADED}
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _from_run(path: str, ours: Config, shapes: Shapes, class_paths: ClassPaths) -> tuple[Match, str]:
    """Takes the best model of another run: all of it from a run of this method, else the parts that both have."""
    try:
        variables, card = trained.read(path)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from error
    theirs, step = config_from(card["config"]), card["run"]["selection"]["best_step"]
    flat = flat_weights(variables["params"], variables)
    title = f"{theirs.experiment}:{theirs.variant} (method {theirs.method}) at step {step or 0}"
    if theirs.method == ours.method:
        names = {target: short(target) for target in shapes}
        dropped = methods.of(theirs).training_only
        reasons = {path: "only training uses it" for path in shapes if _top(path) in dropped}
        reasons |= dict.fromkeys(class_paths(card["classes"]), "the source has other classes")
        if theirs.objective != ours.objective:  # a strategy may add a part to the model, or replace one
            own, others = (set(map(_top, paths)) for paths in (shapes, flat))
            absent = "not in the source, which has another objective"
            reasons |= {path: absent for path in shapes if _top(path) not in others}
            reasons |= {short(path): "of its objective" for path in flat if _top(path) not in own}
    else:
        parts, others = methods.load(ours.method).published, methods.load(theirs.method).published
        shared = [part for part in parts if parts[part] == others.get(part) and any(part_of(p, [part]) for p in flat)]
        names = {target: short(target) for target in shapes if part_of(target, shared)}
        reasons = {short(name): "of the other method" for name in flat if not part_of(name, shared)}
        if not names:
            raise UserError(
                f"config.init_from: {path} is a run of method {theirs.method}, which has no part in common with "
                f"method {ours.method} ({', '.join(parts) or 'no published parts'})"
            )
    arrays = {short(name): np.asarray(value) for name, value in flat.items() if name not in reasons}
    changed = "; ".join(differences(ours.model.to_dict(), theirs.model.to_dict(), "config.model."))
    hint = f" (different: {changed})" if changed else ""
    found = place(path, title, arrays, names, shapes, ours.init_ignore, reasons, hint)
    others = {name: tree for name, tree in variables.items() if name != "params"}
    return found, tree_sha256(variables["params"], others)


def _top(path: str) -> str:
    """Returns the part of the model that a path (with its collection) belongs to: 'trunk'."""
    return short(path).partition("/")[0]


def _grouped(reasons: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Counts names by reason and by their first part: {'its classifier': {'fc': 2}}."""
    groups: dict[str, dict[str, int]] = {}
    for name, reason in reasons.items():
        counts = groups.setdefault(reason, {})
        first = re.split(r"[./]", name)[0]
        counts[first] = counts.get(first, 0) + 1
    return groups


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
