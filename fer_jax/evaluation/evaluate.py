"""Scores a model on a source: every example exactly once, in order, whatever the batch or device count."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fer_jax.data.augment.inputs import CORNER_VIEWS
from fer_jax.data.sources.pipeline import Stream, eval_batches
from fer_jax.data.sources.source import Source
from fer_jax.engine.memory import check_program
from fer_jax.engine.mesh import put_rows, replicated, sharded
from fer_jax.engine.prediction import Prediction
from fer_jax.errors import UserError
from fer_jax.evaluation.clips import ClipEvaluator
from fer_jax.evaluation.metrics import affect_scores, classification_metrics
from fer_jax.evaluation.task import Task, corner_step, eval_step

Outputs = dict[str, np.ndarray]
EVAL_AHEAD = 1  # batches read while another is computed
PLAIN = np.float32(0.4)  # weight of the plain prediction against the mean of its views (fastai)


class Evaluator:
    """The compiled evaluation of `task`; called with variables and a source, it returns the outputs of all examples."""

    def __init__(self, task: Task, mesh: Mesh, batch_size: int):
        self.task, self.mesh = task, mesh
        self._clips: ClipEvaluator | None = None
        # The result does not depend on the batch size, so it is rounded up to what the devices can share.
        self.batch_size = -(-batch_size // mesh.size) * mesh.size
        whole = replicated(mesh)
        advice = f"give a smaller config.evaluation.batch_size than {batch_size}"
        self._check = functools.partial(check_program, mesh=mesh, advice=advice)
        predicting: Any = functools.partial(Prediction, mesh, out_shardings=whole, check=self._check)
        self._step = predicting(functools.partial(eval_step, task), in_shardings=(whole, sharded(mesh)))
        self._corner: Any = None
        if task.corner_evaluation:
            # One program, called for each view: a program of all views would hold them all in memory.
            places = (whole, sharded(mesh), whole)
            self._corner = predicting(functools.partial(corner_step, task), in_shardings=places)

    def __call__(self, variables: Any, source: Source, *, views: bool = True) -> Outputs:
        """Returns `logits` float32 [N, C] and the task's profiles [N, M]; of clips see `ClipEvaluator`.

        With corner views the logits are those of all views, and `plain_logits` those of the image alone. If `views` is
        false, `logits` are those of the image alone, for a ninth of the work.
        """
        variables = {**variables, "params": self.task.method.at_test(variables["params"])}
        if source.frames:
            self._clips = self._clips or ClipEvaluator(self.task, self.mesh, self.batch_size, self._check)
            return self._clips(variables, source)

        def put(rows_and_mask: tuple[np.ndarray, np.ndarray]) -> tuple[dict[str, jax.Array], np.ndarray]:
            rows, mask = rows_and_mask
            batch = put_rows(self.mesh, source.arrays, rows)
            return batch | put_rows(self.mesh, {"mask": mask}, np.arange(len(rows))), mask

        parts: list[tuple[dict[str, jax.Array], np.ndarray]] = []
        chosen = list(eval_batches(len(source), self.batch_size))
        with contextlib.closing(Stream(chosen, 0, put, ahead=EVAL_AHEAD)) as batches:
            for batch, mask in batches:
                outputs = self._outputs(variables, batch, views)
                for values in outputs.values():
                    values.copy_to_host_async()
                parts.append((outputs, mask))
                if len(parts) > 1:  # bounds what is in flight
                    jax.block_until_ready(parts[-2][0])
        host = [jax.tree.map(lambda x, m=mask: np.asarray(x)[m], outputs) for outputs, mask in parts]
        return {name: np.concatenate([outputs[name] for outputs in host]) for name in host[0]}

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
    outputs: Mapping[str, np.ndarray], source: Source, *, bootstrap: int, task: Task | None = None
) -> dict[str, Any]:
    """Returns the metrics of `outputs` against the labels (and votes) of `source`, as plain JSON values.

    If `task` is given, the scores of its method are added. For a method that predicts no classes, its measures are
    averaged instead.
    """
    data = {"dataset": source.name, "split": source.split, "unit": source.unit}
    data |= {"frames": source.frame_counts()} if source.frames else {}
    if task is not None and task.method.measures:
        return data | _measured(outputs, source, task.method.measures)
    logits, labels = outputs["logits"], source.arrays["label"]
    _check_finite(logits, source)
    metrics = classification_metrics(logits, labels, source.classes, bootstrap=bootstrap)
    votes = source.arrays.get("vote_target")
    if votes is not None and (voted := votes.sum(-1) > 0).any():  # some examples have no vote for an emotion
        on_voted = classification_metrics(logits[voted], labels[voted], source.classes, votes=votes[voted], bootstrap=0)
        metrics |= {name: value for name, value in on_voted.items() if name.endswith("_to_votes")}
    if "affect" in outputs and (truth := source.affect) is not None:
        metrics |= affect_scores(outputs["affect"], truth)
    if task is not None:
        metrics |= task.method.score(task.model, logits, labels)
    return data | metrics


def _measured(outputs: Mapping[str, np.ndarray], source: Source, titles: Mapping[str, str]) -> dict[str, Any]:
    """Returns the mean of each measure over all examples, with their titles in `measures`."""
    for name in titles:
        _check_finite(outputs[name][:, None], source)
    means = {name: float(np.mean(outputs[name], dtype=np.float64)) for name in titles}
    facts = {"num_examples": len(source), "classes": list(source.classes), "measures": dict(titles)}
    return facts | means


def _check_finite(outputs: np.ndarray, source: Source) -> None:
    if broken := int((~np.isfinite(outputs)).any(axis=-1).sum()):
        raise UserError(
            f"outputs for {broken} of {len(source)} examples of {source.name} {source.split} are not finite; "
            "lower config.optimizer.learning_rate, or set config.optimizer.clip_norm=1.0"
        )
