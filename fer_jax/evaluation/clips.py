"""Evaluates clips of any length on all their frames: embeds all faces first, then combines them clip by clip.

The trunk processes the faces of all clips one after the other in batches of one size: nothing is padded, memory is
bounded and one program serves every length. Clips of similar length are then grouped, their features padded to the next
power of two and masked, so that the attention needs only a few small programs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.augment.inputs import mirrored, plain_inputs
from fer_jax.data.sources.clips import frame_rows, is_per_frame
from fer_jax.data.sources.pipeline import eval_batches
from fer_jax.data.sources.source import Source
from fer_jax.engine.mesh import put_rows, replicated, sharded
from fer_jax.engine.prediction import Prediction
from fer_jax.evaluation.task import Batch, Task, mean_of_views

SHORTEST = 8  # frames; shorter clips are padded to it
FRAMES_AT_ONCE = 1 << 15  # in one batch of the attention, with padding


class ClipEvaluator:
    """The compiled evaluation of a task on clips.

    The method's model must return `aux['frame_features']` [B, T, P] for `frames`, and accept them instead of `frames`.
    """

    def __init__(self, task: Task, mesh: Mesh, batch_size: int, check: Any = None):
        """`batch_size`: how many faces the trunk takes at once, and at most how many clips the attention takes.

        `check` is that of `Prediction`.
        """
        self._mesh, self._batch_size = mesh, batch_size
        whole, rows = replicated(mesh), sharded(mesh)
        places = {"in_shardings": (whole, rows), "out_shardings": whole}
        compiled: Any = functools.partial(Prediction, mesh, **places, check=check)
        self._embedding = functools.partial(embed, task)  # one object: its shapes are found once
        self._embed = compiled(self._embedding)
        self._join = compiled(functools.partial(join, task))

    def __call__(self, variables: Any, source: Source) -> dict[str, np.ndarray]:
        """Returns `logits` float32 [N, C] and the task's profiles: per clip [N, ...], or per frame (by their name,
        `is_per_frame`) [sum of lengths, ...], one clip after the other. Masked frames keep what the model returns.
        """
        start, length = source.arrays["start"], source.arrays["length"]
        features = self._features(variables, source, frame_rows(start, length))
        first = np.cumsum(length) - length
        results: dict[str, np.ndarray] = {}
        for rows, padded in _groups(length, self._batch_size, self._mesh.size):
            real = rows >= 0
            clip = np.where(real, rows, 0)
            place = first[clip, None] + np.arange(padded)
            there = real[:, None] & (np.arange(padded) < length[clip, None])
            place = np.where(there, place, 0)
            mask = there & source.frames["frame_mask"][np.where(there, start[clip, None] + np.arange(padded), 0)]
            host = {f"features_{view}": values[place] for view, values in enumerate(features)}
            every = np.arange(len(rows))
            outputs = self._join(variables, put_rows(self._mesh, host | {"frame_mask": mask, "mask": real}, every))
            for name, values in outputs.items():
                values = np.asarray(values)
                moving = is_per_frame(name)
                shape = (int(length.sum()), *values.shape[2:]) if moving else (len(length), *values.shape[1:])
                into = results.setdefault(name, np.zeros(shape, np.float32))
                into[place[there] if moving else clip[real]] = values[there] if moving else values[real]
        return results

    def _features(self, variables: Any, source: Source, places: np.ndarray) -> list[np.ndarray]:
        """Returns the features [sum of lengths, P] of all faces for each view; 0 in frames without a face."""
        faces = np.flatnonzero(source.frames["frame_mask"][places])
        frames = source.shown_frames
        like = {name: jax.ShapeDtypeStruct((self._batch_size, *v.shape[1:]), v.dtype) for name, v in frames.items()}
        shapes = jax.eval_shape(self._embedding, variables, like)
        features = [np.zeros((max(len(places), 1), *shape.shape[1:]), np.float32) for shape in shapes]
        waiting: list[tuple[Any, np.ndarray]] = []

        def settle(most: int) -> None:
            while len(waiting) > most:  # bounds the number of batches in flight
                views, chosen = waiting.pop(0)
                for values, view in zip(features, views, strict=True):
                    values[chosen] = np.asarray(view)[: len(chosen)]

        for rows, mask in eval_batches(len(faces), self._batch_size):
            chosen = faces[rows[mask]]
            padded = np.resize(places[chosen], len(rows))
            waiting.append((self._embed(variables, put_rows(self._mesh, frames, padded)), chosen))
            settle(1)
        settle(0)
        return features


def embed(task: Task, variables: Any, batch: Batch) -> list[jax.Array]:
    """Returns the trunk's features [N, P] of stored frames [N, H, W, C], and of mirrored ones if the task asks."""
    alone = {name: values[:, None] for name, values in batch.items()}
    inputs = plain_inputs(alone, task.preprocessing)
    inputs |= {"frame_mask": jnp.ones(inputs["frames"].shape[:2], bool)}
    views = [inputs, mirrored(inputs, task.point_mirror)] if task.flip_evaluation else [inputs]
    return [task.model.apply(variables, view, train=False)[1]["frame_features"][:, 0] for view in views]


def join(task: Task, variables: Any, batch: Batch) -> dict[str, jax.Array]:
    """Returns `logits` [B, C] of clips from their frames' features [B, T, P], and the profiles of the first view."""
    views = [batch[name] for name in sorted(batch) if name.startswith("features_")]
    rest: Mapping[str, jax.Array] = {"frame_mask": batch["frame_mask"], "mask": batch["mask"]}
    answers = [task.model.apply(variables, {**rest, "frame_features": f}, train=False) for f in views]
    aux = answers[0][1]
    logits = mean_of_views([logits for logits, _ in answers])
    return {"logits": logits.astype(jnp.float32)} | {k: aux[k].astype(jnp.float32) for k in task.profiles if k in aux}


def _groups(length: np.ndarray, most: int, devices: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (clips, frames to pad to) for clips of similar length; -1 fills a group up to the size of its program."""
    padded = np.maximum(SHORTEST, 1 << np.ceil(np.log2(np.maximum(length, 1))).astype(int))
    for frames in np.unique(padded).tolist():
        size = -(-max(1, min(most, FRAMES_AT_ONCE // frames)) // devices) * devices
        members = np.flatnonzero(padded == frames)
        for begin in range(0, len(members), size):
            rows = members[begin : begin + size]
            yield np.append(rows, np.full(size - len(rows), -1, rows.dtype)), frames
