"""Scores a model on a source: every example exactly once, in order, whatever the batch or device count."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.inputs import CORNER_VIEWS
from fer_jax.data.pipeline import eval_batches, stream
from fer_jax.data.source import Source
from fer_jax.errors import UserError
from fer_jax.evaluation.clips import ClipEvaluator
from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.training.compiler import step_options
from fer_jax.training.sharding import put_rows, replicated, sharded
from fer_jax.training.step import Task, corner_step, eval_step

Outputs = dict[str, np.ndarray]
EVAL_AHEAD = 1  # batches that are read while another is computed
PLAIN = np.float32(0.4)  # weight of the plain prediction beside the mean of its views (fastai)


class Evaluator:
    """The compiled evaluation of a task; called with variables and a source, it returns the outputs of all examples."""

    def __init__(self, task: Task, mesh: Mesh, batch_size: int):
        self._task, self._mesh = task, mesh
        self._clips: ClipEvaluator | None = None
        # The result does not depend on the batch size: any that the devices can share will do.
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        whole = replicated(mesh)
        self._step = jax.jit(
            functools.partial(eval_step, task),
            in_shardings=(whole, sharded(mesh)),
            out_shardings=whole,
            compiler_options=step_options(mesh),
        )
        self._corner: Any = None
        if task.corner_evaluation:
            # A program for any one view, called for each: as one program it would hold all views in memory.
            self._corner = jax.jit(
                functools.partial(corner_step, task),
                in_shardings=(whole, sharded(mesh), whole),
                out_shardings=whole,
                compiler_options=step_options(mesh),
            )

    def __call__(self, variables: Any, source: Source, *, views: bool = True) -> Outputs:
        """Returns `logits` float32 [N, C] and the task's profiles [N, M]; of clips see `ClipEvaluator`.

        Where the task has corner views the logits are those of all views and `plain_logits` those of the image alone,
        unless `views` is false: then `logits` are plain, for a ninth of the work.
        """
        if source.frames:
            self._clips = self._clips or ClipEvaluator(self._task, self._mesh, self._batch_size)
            return self._clips(variables, source)
        parts = []

        def put(rows_and_mask: tuple[np.ndarray, np.ndarray]) -> tuple[dict[str, jax.Array], np.ndarray]:
            rows, mask = rows_and_mask
            batch = put_rows(self._mesh, source.arrays, rows)
            return batch | put_rows(self._mesh, {"mask": mask}, np.arange(len(rows))), mask

        for batch, mask in stream(list(eval_batches(len(source), self._batch_size)), 0, put, ahead=EVAL_AHEAD):
            parts.append((self._outputs(variables, batch, views), mask))
            if len(parts) > 1:  # bounds what is in flight
                jax.block_until_ready(parts[-2][0])
        outputs = [jax.tree.map(lambda x, m=mask: np.asarray(x)[m], out) for out, mask in parts]
        return {name: np.concatenate([out[name] for out in outputs]) for name in outputs[0]}

    def _outputs(self, variables: Any, batch: Mapping[str, jax.Array], views: bool) -> dict[str, jax.Array]:
        outputs = self._step(variables, batch)
        if self._corner is None or not views:
            return outputs
        plain, corners = outputs["logits"], [self._corner(variables, batch, np.int32(n)) for n in range(CORNER_VIEWS)]
        return outputs | {"logits": with_corners(plain, jnp.stack(corners)), "plain_logits": plain}


def with_corners(plain: jax.Array, views: jax.Array) -> jax.Array:
    """Returns the log of 0.4 p + 0.6 mean_v p_v, for logits [B, C] and the views' log-probabilities [V, B, C]."""
    of_views = jax.nn.logsumexp(views, axis=0) - jnp.log(jnp.float32(len(views)))
    both = jnp.stack([jax.nn.log_softmax(plain) + jnp.log(PLAIN), of_views + jnp.log1p(-PLAIN)])
    return jax.nn.logsumexp(both, axis=0)


def score(
    outputs: Mapping[str, np.ndarray], source: Source, *, bootstrap: int, seed: int = 0, task: Task | None = None
) -> dict[str, Any]:
    """Returns the metrics of `outputs` against the labels (and votes) of `source`, as plain JSON values.

    With `task` come the measures of its method's own `score(model, logits, labels)`, where it has one. The outputs of
    a method that predicts no classes are averaged.
    """
    if task is not None and hasattr(task.method, "MEASURES"):
        return _measured(outputs, source, task.method.MEASURES)
    logits, labels = outputs["logits"], source.arrays["label"]
    _check_finite(logits, source)
    metrics = classification_metrics(logits, labels, source.classes, bootstrap=bootstrap, seed=seed)
    votes = source.arrays.get("vote_target")
    if votes is not None and (voted := votes.sum(-1) > 0).any():  # nobody may have voted for any emotion
        on_voted = classification_metrics(logits[voted], labels[voted], source.classes, votes=votes[voted], bootstrap=0)
        metrics["kl_to_votes"] = on_voted["kl_to_votes"]
    if task is not None and hasattr(task.method, "score"):
        metrics |= task.method.score(task.model, logits, labels)
    found = {"dataset": source.name, "split": source.split, "unit": source.unit}
    return found | ({"frames": source.frame_counts()} if source.frames else {}) | metrics


def _measured(outputs: Mapping[str, np.ndarray], source: Source, titles: Mapping[str, str]) -> dict[str, Any]:
    """The mean of each measure over all examples; `measures` says what they are called."""
    for name in titles:
        _check_finite(outputs[name][:, None], source)
    means = {name: float(np.mean(outputs[name], dtype=np.float64)) for name in titles}
    facts = {"num_examples": len(source), "classes": list(source.classes), "measures": dict(titles)}
    return {"dataset": source.name, "split": source.split, "unit": source.unit} | facts | means


def _check_finite(outputs: np.ndarray, source: Source) -> None:
    if broken := int((~np.isfinite(outputs)).any(axis=-1).sum()):
        raise UserError(
            f"outputs for {broken} of {len(source)} examples of {source.name} {source.split} are not finite; "
            "lower config.optimizer.learning_rate, or set config.optimizer.clip_norm=1.0"
        )
