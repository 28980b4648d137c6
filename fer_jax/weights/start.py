"""What a run starts from at step 0: `config.init_from`, a file of published weights or another run's work directory.

Parameters and batch statistics are loaded; what a method remembers beyond them (centres, relabelled targets) belongs to
the data it has seen and starts anew. Nothing is left out silently: each parameter is loaded, or kept at init for a
reason, and each weight of the source is used, or ignored for a reason; anything else is refused. A user gives reasons
with `config.init_ignore`, expressions that are searched in names: a parameter of the model that one of them is found in
stays at init whatever the source holds, and a weight of the source that one is found in needs no place.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from fer_jax import methods
from fer_jax.config.fields import Config, differences
from fer_jax.engine.mesh import put_replicated, replicated
from fer_jax.errors import UserError, nearest
from fer_jax.runs.checkpoint import Checkpoints
from fer_jax.runs.workdir import read_results, stored_run
from fer_jax.training.setup import Setup
from fer_jax.training.state import TrainState, tree_sha256
from fer_jax.training.step import init_state
from fer_jax.weights.files import read_weights
from fer_jax.weights.networks import (
    Match,
    Problems,
    ignored_by,
    match,
    part_of,
    short,
)

LOADED = ("params", "batch_stats")  # the collections that travel from one run to another
Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass
class Start:
    """The weights to begin with.

    Attributes:
        values: by path with its collection ('params/trunk/conv1/kernel'), in our layout; emptied by `into`.
        account: what was loaded from where, kept and ignored, as plain JSON.
    """

    values: dict[str, np.ndarray]
    account: dict[str, Any]

    def into(self, state: TrainState, mesh: Mesh) -> TrainState:
        """Returns the state of step 0 with these weights in the model and, where there is one, its moving average.

        The optimiser's state is what it was: at step 0 it does not depend on the parameters.
        """
        params, collections_ = self._filled(state.params, state.collections, mesh)
        average = state.average
        if average is not None:
            average_params, average_collections = self._filled(average["params"], average["collections"], mesh)
            average = {"params": average_params, "collections": average_collections}
        self.values.clear()  # half a gigabyte, for some networks, that would live as long as the run
        return state.replace(params=params, collections=collections_, average=average)

    def _filled(self, params: Any, collections_: Mapping[str, Any], mesh: Mesh) -> tuple[Any, dict[str, Any]]:
        flat = flax.traverse_util.flatten_dict({"params": params, **collections_}, sep="/", keep_empty_nodes=True)
        # Copies: the step donates its buffers, so they must belong to nobody else.
        fresh = jax.tree.map(jnp.copy, put_replicated(mesh, self.values))
        tree = flax.traverse_util.unflatten_dict(flat | fresh, sep="/")
        return tree.pop("params"), tree

    def describe(self) -> str:
        """Returns the account in a few lines."""
        lines = []
        for source in self.account["sources"]:
            of = f"{source['kind']}, sha256 {source['sha256'][:12]}..."
            lines.append(f"  start  {source['path']} ({of}): {source['holds']}")
            lines.append(f"           loaded        {_counted(source['loaded'])}")
            lines += [f"           ignored       {_counted(n)}: {why}" for why, n in source["ignored"].items()]
        kept = self.account["kept_at_init"]
        return "\n".join(lines + [f"           kept at init  {_counted(n)}: {why}" for why, n in kept.items()])


def read_start(setup: Setup) -> Start | None:
    """Reads `config.init_from` and finds a place for all of it; None where the run starts from scratch.

    Raises:
        UserError: if a source cannot be read, does not fit, fills what another one fills, or if an expression of
            `config.init_ignore` is found in no name.
    """
    config = setup.config
    paths = [path.strip() for path in config.init_from.split(",") if path.strip()]
    if not paths:
        if config.init_ignore:
            raise UserError(f"config.init_ignore={config.init_ignore} has no meaning without config.init_from")
        return None
    target = _Target.of(setup)
    values: dict[str, np.ndarray] = {}
    kept: dict[str, str] = {}
    sources, names = [], [short(path) for path in target.shapes]
    for path in paths:
        is_folder = epath.Path(path).expanduser().is_dir()
        found, described = _from_run(path, target) if is_folder else _from_file(path, target)
        if twice := sorted(set(found.values) & set(values)):
            raise UserError(f"config.init_from: two sources hold {short(twice[0])}: give one of them")
        values |= found.values
        kept |= found.kept
        names += found.ignored
        loaded = collections.Counter(short(p).partition("/")[0] for p in found.values)
        ignored = _folded(found.ignored)
        sources.append({"path": path, **described, "holds": found.title, "loaded": dict(loaded), "ignored": ignored})
    for expression in config.init_ignore:
        if not any(re.search(expression, name) for name in names):
            raise UserError(f"config.init_ignore: '{expression}' is found in no name; {nearest(expression, names)}")
    rest = {short(path): kept.get(path, "not in the source") for path in target.shapes if path not in values}
    return Start(values, {"sources": sources, "kept_at_init": _folded(rest)})


@dataclasses.dataclass(frozen=True)
class _Target:
    """The model to fill.

    Attributes:
        setup: of the run.
        shapes: of its parameters and batch statistics, by path with the collection.
        parts: which of its parts are published networks.
    """

    setup: Setup
    shapes: Shapes
    parts: Mapping[str, str]

    @classmethod
    def of(cls, setup: Setup) -> _Target:
        state = setup.abstract_state()
        shapes = _shapes(state.params, state.collections)
        return cls(setup, shapes, _occurring(parts_of(setup.config.method), shapes))

    @property
    def ignore(self) -> Sequence[str]:
        return self.setup.config.init_ignore


def parts_of(method: str) -> Mapping[str, str]:
    """Returns which parts of a method's model are which network of `fer_jax.weights.networks`."""
    return methods.load(method).published


def _occurring(parts: Mapping[str, str], paths: Iterable[str]) -> dict[str, str]:
    """Returns the parts that a model has; a table names all that one may have, such as both scales of an EDSR."""
    found = {part_of(path, parts) for path in paths}
    return {part: network for part, network in parts.items() if part in found}


def _from_file(path: str, target: _Target) -> tuple[Match, dict[str, Any]]:
    file = read_weights(path)
    found = match(file, target.shapes, target.parts, target.ignore)
    return found, {"kind": file.kind, "sha256": file.sha256}


def _from_run(path: str, target: _Target) -> tuple[Match, dict[str, Any]]:
    """Takes the best model of another run: all of it from a run of this method, else the parts that both have."""
    folder = epath.Path(path).expanduser()
    if not (folder / "config.json").exists():
        raise UserError(f"config.init_from: the folder {path} is no work directory of a run: it has no config.json")
    theirs = stored_run(folder)
    ours = target.setup.config
    checkpoints = Checkpoints((folder / "checkpoints").absolute(), keep=1, read_only=True)
    best, record = checkpoints.best(replicated(target.setup.mesh))
    values = {path: np.asarray(value) for path, value in _flat(best["params"], best["collections"]).items()}
    title = f"{theirs.experiment}:{theirs.variant} (method {theirs.method}) at step {record['best'].get('step', 0)}"
    if theirs.method == ours.method:
        scope, moved = None, _other_classes(folder, theirs, target)
    else:
        there = _occurring(parts_of(theirs.method), values)
        pairs, moved = _pairs(target.parts, there), frozenset()
        if not pairs:
            raise UserError(
                f"config.init_from: {path} is a run of method {theirs.method}, of whose parts "
                f"({_listed(there)}) method {ours.method} ({_listed(target.parts)}) has none"
            )
        scope, values = list(pairs), _renamed(values, pairs)
    found, problems = _match_run(title, values, target, scope, moved)
    if problems:
        changed = "; ".join(differences(ours.model.to_dict(), theirs.model.to_dict(), "config.model."))
        raise UserError(
            f"config.init_from: the model of {path} does not fit: {problems}; build the model like it"
            f"{f' (differing: {changed})' if changed else ''}, or name in config.init_ignore what may differ"
        )
    return found, {"kind": "run", "sha256": tree_sha256(best["params"], best["collections"])}


def _pairs(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Returns which part of another method fills which of ours: that of the same name, else the only such network."""
    pairs = {}
    for part, network in ours.items():
        alike = [other for other, its_network in theirs.items() if its_network == network]
        if part in alike or len(alike) == 1:
            pairs[part] = part if part in alike else alike[0]
    return pairs


def _renamed(values: Mapping[str, np.ndarray], pairs: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Gives the parts of another method our names; what belongs to none of them keeps its own."""
    renamed = {path: value for path, value in values.items() if not part_of(path, pairs.values())}
    for path, value in values.items():
        for part, partner in pairs.items():
            if part_of(path, [partner]):
                collection, _, rest = path.partition("/")
                renamed[f"{collection}/{part}/{rest.removeprefix(partner + '/')}"] = value
    return renamed


def _listed(parts: Mapping[str, str]) -> str:
    return ", ".join(f"{part}: {network}" for part, network in parts.items())


def _match_run(
    title: str, values: Mapping[str, np.ndarray], target: _Target, scope: Sequence[str] | None, moved: frozenset[str]
) -> tuple[Match, Problems]:
    """Pairs equal paths, inside the parts of `scope` (None is everything) and outside of `moved`."""
    found, problems = Match(title, {}, {}, {}), Problems()
    for path, shape in target.shapes.items():
        if scope is not None and not part_of(path, scope):
            continue
        if ignored_by(path, target.ignore):
            found.kept[path] = "config.init_ignore"
        elif path in moved:
            found.kept[path] = "the source has other classes"
        elif path not in values:
            problems.homeless.append(short(path))
        elif values[path].shape != shape:
            problems.shapes.append(f"{short(path)} {list(shape)} and there {list(values[path].shape)}")
        else:
            found.values[path] = values[path]
    for path in values:
        if path in found.values or path in found.kept:
            continue
        if scope is not None and not part_of(path, scope):
            found.ignored[short(path)] = "of the other method"
        elif ignored_by(path, target.ignore):
            found.ignored[short(path)] = "config.init_ignore"
        elif path not in target.shapes:
            problems.unclaimed.append(short(path))
    return found, problems


def _other_classes(folder: epath.Path, theirs: Config, target: _Target) -> frozenset[str]:
    """Returns what has a place for each class, if the classes of the run in `folder` are not ours in our order."""
    train = target.setup.train
    results = read_results(folder)
    # An unfinished run has not written its classes; those of one data set under one rule are the same.
    if list(results["classes"]) == list(train.classes) if results else theirs.data == target.setup.config.data:
        return frozenset()
    task = target.setup.task
    task = dataclasses.replace(task, model=task.method.wider(task.model))
    template = target.setup.template() | {"target": jnp.zeros((2, len(train.classes) + 1))}
    state = jax.eval_shape(lambda: init_state(task, optax.identity(), template, ema=False))
    shapes = _shapes(state.params, state.collections)
    return frozenset(path for path, shape in target.shapes.items() if shapes[path] != shape)


def _flat(params: Any, collections_: Mapping[str, Any]) -> dict[str, Any]:
    tree = {name: values for name, values in {"params": params, **collections_}.items() if name in LOADED}
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _shapes(params: Any, collections_: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in _flat(params, collections_).items()}


def _folded(reasons: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Counts names by reason and by the part they have in common: {'its classifier': {'fc': 2}}."""
    folded: dict[str, dict[str, int]] = {}
    for reason in dict.fromkeys(reasons.values()):
        names = [re.split(r"[./]", name) for name, why in reasons.items() if why == reason]
        lasts = {name[-1] for name in names}
        if len(lasts) == 1 and len(names) > 1:
            folded[reason] = {f"*.{lasts.pop()}": len(names)}
        else:
            folded[reason] = dict(collections.Counter(name[0] for name in names))
    return folded


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
