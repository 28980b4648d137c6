"""LDL-ALSG, label distribution learning on auxiliary label space graphs (Chen et al., CVPR 2020).

Faces that are alike in their landmarks or action units should be predicted alike, although each has one label:

    L = mean_i CE(y_i, p_i) + sum over spaces s: lambda_s mean over edges (i, j) of s: a_ij KL(p_i || p_j)
    a_ij = exp(-|x_i - x_j|^2 / (2 sigma^2)) for the k nearest neighbors j of i in s, else 0

The paper's code is not public. Two forms: 'graph', the default, is nearest to its text: neighbors in the whole training
set, found once; sigma the median distance of neighbors; with each face of a batch comes one neighbor, drawn from all
its edges, weighted so that the mean over draws is the mean over edges. 'pyldl' is the re-implementation in PyLDL:
neighbors within the batch, edges without weights, `alpha` times the sum over edges in place of lambda times the mean.

Landmarks are 68 points, centered, scaled to an inter-ocular distance of one and turned to their mean shape
(Procrustes); a face without any has no edge there. Real data get theirs from `python -m tfds_builders landmarks`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.methods.method import Batch, Clock, Config, Memory, Method, Outputs, Rows, Terms
from fer_jax.methods.objective import Strategy, parts

FORMS = ("graph", "pyldl")
EYES = (36, 45)  # outer corners among 68 landmarks in iBUG order, from 0
ROUNDS = 3  # of turning to the mean shape
ROWS = 512  # whose distances to all others are in memory at once


def apply(
    method: Method,
    *,
    form: str = "graph",
    k: int = 5,
    landmarks: float = 0.5,
    action_units: float = 0.5,
    alpha: float = 5e-4,
) -> Method:
    """Adds the terms `landmarks` and `action_units`, and in the form 'graph' the partners.

    Args:
        method: any classifier of images.
        form: form of the graph and the loss, one of FORMS
        k: neighbors of each face in each space
        landmarks: lambda of the landmark space; 0 leaves it out
        action_units: lambda of the action unit space; 0 leaves it out
        alpha: weight of both sums in the form 'pyldl'
    """
    lambdas = {"landmarks": landmarks, "action_units": action_units}
    spaces = [name for name, weight in lambdas.items() if weight > 0]

    def memory(fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each space its graph, `neighbors` [N, k] and `weights` [N, k], or the descriptions x [N, D]."""
        described = {name: describe(name, fields) for name in spaces}
        if form == "pyldl":
            return described
        graphs = {name: graph(x, k) for name, x in described.items()}
        return {f"{name}_{part}": values for name, parts_ in graphs.items() for part, values in parts_.items()}

    def partners(index: Rows, memory: Memory, key: jax.Array) -> Rows:
        """One neighbor of each example, all edges of all spaces alike."""
        neighbors = jnp.concatenate([memory[f"{name}_neighbors"][index] for name in spaces], axis=1)
        drawn = jax.random.randint(key, index.shape, 0, neighbors.shape[1])
        return jnp.take_along_axis(neighbors, drawn[:, None], axis=1)[:, 0]

    def targets(memory: Memory, batch: Batch, clock: Clock) -> Batch:
        """Adds what the memory has of each example as fields that begin with 'graph_'."""
        del clock
        return {**batch, **{f"graph_{name}": values[batch["index"]] for name, values in memory.items()}}

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: Any) -> Terms:
        """The terms of the method, of its own views, and one for each space."""
        if form == "pyldl":
            terms = {name: alpha * within_batch(outputs[0].logits, batch, name, k) for name in spaces}
            return {**method.loss(outputs, batch, clock, **options), **terms}
        between = divergence(outputs[0].logits, outputs[-1].logits)
        there = {name: batch[f"graph_{name}_neighbors"] == batch["partner_index"][:, None] for name in spaces}
        # An edge of two spaces is drawn twice as often.
        drawn = sum((jnp.any(found, axis=1).astype(jnp.float32) for found in there.values()), start=jnp.zeros(()))
        terms = {}
        for name, found in there.items():
            weight = jnp.max(jnp.where(found, batch[f"graph_{name}_weights"], 0.0), axis=1)
            terms[name] = len(spaces) / jnp.maximum(drawn, 1.0) * weight * between
        return {**method.loss(outputs[:-1], batch, clock, **options), **terms}

    return dataclasses.replace(
        method,
        memory=memory,
        targets=targets,
        partners=partners if form == "graph" else None,
        loss=loss,
        weights={**method.weights, **{name: 1.0 if form == "pyldl" else lambdas[name] for name in spaces}},
        whole_batch=method.whole_batch or form == "pyldl",
    )


def divergence(logits: Float[Array, "... C"], others: Float[Array, "... C"]) -> Float[Array, "..."]:
    """KL(p_i || p_j) in nats, broadcast; gradients flow through both."""
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def within_batch(logits: Float[Array, "B C"], batch: Batch, space: str, k: int) -> Float[Array, "B"]:
    """B times the sum over the k nearest neighbors of each example in the batch, so that its mean is the whole sum."""
    x, size = batch[f"graph_{space}"], len(logits)
    valid = batch["mask"] & jnp.all(jnp.isfinite(x), axis=1)
    x = jnp.where(valid[:, None], x, 0.0)
    apart = jnp.sum((x[:, None] - x[None, :]) ** 2, axis=-1)
    possible = valid[:, None] & valid[None, :] & ~jnp.eye(size, dtype=bool)
    near, places = jax.lax.top_k(-jnp.where(possible, apart, jnp.inf), min(k, size - 1))
    between = divergence(logits[:, None], logits[places])
    return size * jnp.sum(jnp.where(jnp.isfinite(near), between, 0.0), axis=1)


def describe(space: str, fields: Mapping[str, np.ndarray]) -> Float[np.ndarray, "N D"]:
    """Returns the vectors by which faces are compared in a space, NaN where unknown.

    Raises:
        UserError: if the data set does not have it.
    """
    if space not in fields:
        remedy = {
            "landmarks": "run `python -m tfds_builders landmarks NAME` and set config.data.points='face24', or give 0",
            "action_units": "only synthetic faces do: give 0",
        }
        raise UserError(
            f"config.strategy.ldl_alsg.{space}: the {space.replace('_', ' ')} of this data set's faces are not known; "
            + remedy[space]
        )
    values = np.asarray(fields[space], np.float32)
    return aligned(values) if space == "landmarks" else values.reshape(len(values), -1)


def aligned(landmarks: Float[np.ndarray, "N 68 2"]) -> Float[np.ndarray, "N 136"]:
    """Shapes centered, scaled to an inter-ocular distance of one, and turned to the mean of all of them."""
    eyes = landmarks[:, EYES[0]] - landmarks[:, EYES[1]]
    known = np.isfinite(landmarks).all(axis=(1, 2)) & (np.abs(eyes) > 0).any(axis=1)
    found = np.full((len(landmarks), landmarks.shape[1] * 2), np.nan, np.float32)
    if not known.any():
        return found
    z = landmarks[known, :, 0] + 1j * landmarks[known, :, 1]
    z = (z - z.mean(axis=1, keepdims=True)) / np.linalg.norm(eyes[known], axis=1)[:, None]
    mean = z[0]
    for _ in range(ROUNDS):
        overlap = (mean[None] * z.conj()).sum(axis=1, keepdims=True)
        z = z * (overlap / np.abs(overlap))  # the turn that brings each shape nearest to the mean
        mean = z.mean(axis=0)
    found[known] = np.stack([z.real, z.imag], axis=-1).reshape(len(z), -1)
    return found


def graph(x: Float[np.ndarray, "N D"], k: int) -> dict[str, np.ndarray]:
    """Returns `neighbors` int32 [N, k], the nearest first, and `weights` float32 [N, k] of all rows.

    A row that is not finite is nobody's neighbor, and its own k times with weight 0. The weights of the n others are
    a_ij N / n, so that the mean over all rows is that over edges.

    Raises:
        UserError: for fewer than k + 1 rows that are finite.
    """
    places = np.flatnonzero(np.isfinite(x).all(axis=1))
    if len(places) <= k:
        raise UserError(f"config.strategy.ldl_alsg.k={k}: {len(places)} training faces can be compared; give less")
    y = x[places].astype(np.float64)
    squares = (y**2).sum(axis=1)
    found, apart = np.zeros((len(y), k), int), np.zeros((len(y), k))
    for start in range(0, len(y), ROWS):
        rows = np.arange(start, min(start + ROWS, len(y)))
        between = np.maximum(squares[rows, None] + squares[None] - 2 * y[rows] @ y.T, 0.0)
        between[np.arange(len(rows)), rows] = np.inf
        near = np.argpartition(between, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(between, near, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(near, order, axis=1)
        apart[rows] = np.take_along_axis(between, found[rows], axis=1)
    sigma = max(float(np.median(np.sqrt(apart))), 1e-6)
    neighbors = np.repeat(np.arange(len(x), dtype=np.int32)[:, None], k, axis=1)
    neighbors[places] = places[found]
    weights = np.zeros((len(x), k), np.float32)
    weights[places] = len(x) / len(places) * np.exp(-apart / (2 * sigma**2))
    return {"neighbors": neighbors, "weights": weights}


def check(config: Config) -> None:
    """Raises UserError for options out of range, and for mixtures of faces, which have no neighbors."""
    options, here = config.strategy.ldl_alsg, "config.strategy.ldl_alsg"
    for name in ("landmarks", "action_units", "alpha"):
        if options[name] < 0:
            raise UserError(f"{here}.{name}={options[name]}: give a number of at least 0")
    if not (options.landmarks or options.action_units):
        raise UserError(f"{here}: landmarks and action_units are 0, so that there is no graph: give one of them")
    if mixed := {"mixup", "cutmix"} & {*parts(config.objective)}:
        raise UserError(
            f"config.objective: {mixed.pop()} mixes two faces, and a mixture has no neighbors: leave it out"
        )


STRATEGY = Strategy(
    apply=apply, claims=("memory", "targets", "partners"), needs=("classes", "images", "one view"), check=check
)
