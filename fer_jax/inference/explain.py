"""Where a model looks: class-activation maps of any method, and pictures of them.

The gradient of a class's logit is taken at the last map [B, h, w, P] that the network computes, found by tracing it, so
no method has to know of it.

    cam: gradient times activation, summed over the channels at each place (HiResCAM, Draelos and Carin 2020). Where
        the classifier is linear on the mean of the map, this is the class-activation map of Zhou et al. (CVPR 2016):
        its sum is the logit without the bias.
    gradcam: the gradient is averaged over the places first, and what is negative in the result is left out (Grad-CAM,
        Selvaraju et al., ICCV 2017).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int, UInt8

from fer_jax.engine.compiler import jit_for
from fer_jax.engine.mesh import put_replicated
from fer_jax.errors import UserError, nearest
from fer_jax.evaluation.task import model_input
from fer_jax.inference.trained import Trained
from fer_jax.report.heat import DIVERGING

KINDS = ("cam", "gradcam")
AT_ONCE = 32  # faces
COVER = 0.65  # the largest share of a face that the colors of a map replace


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Maps of how much each place of a face speaks for a class.

    Attributes:
        maps: in the size of the faces; above 0 speaks for the class, below 0 against it. 0 where the network does not
            see the face.
        classes: which class each map explains.
        logits: of the faces.
    """

    maps: Float[np.ndarray, "N H W"]
    classes: Int[np.ndarray, " N"]
    logits: Float[np.ndarray, "N C"]


def explain(
    model: Trained,
    faces: UInt8[np.ndarray, "N H W K"],
    classes: Int[np.ndarray, " N"] | None = None,
    kind: str = "cam",
    variables: Any = None,
) -> Explanation:
    """Explains the predictions of cropped faces.

    Args:
        model: of any method that predicts classes from maps.
        faces: as for `Trained.predict`.
        classes: the classes to explain; those that are predicted by default.
        kind: one of `KINDS`.
        variables: to use instead of the trained ones, such as those of an untrained model.

    Raises:
        UserError: for an unknown kind, and a method that computes no map or predicts no classes.
    """
    if kind not in KINDS:
        raise UserError(f"there is no explanation of the kind '{kind}'; {nearest(kind, KINDS)}")
    if model.task.method.measures:
        raise UserError(f"{model.card['method']} predicts no classes: there is nothing to explain")
    variables = model.placed if variables is None else put_replicated(model.mesh, variables)
    logits = model.logits(faces) if classes is None else None
    wanted = np.asarray(classes if logits is None else logits.argmax(axis=1), np.int32)
    task = model.task_for(faces.shape[1:])
    size = min(AT_ONCE, 1 << (len(faces) - 1).bit_length())
    # Batches of one size: the last one is filled up with faces from its beginning.
    batches = [np.resize(np.arange(b, min(b + size, len(faces))), size) for b in range(0, len(faces), size)]
    last = _last_map(task, variables, _batch(model, faces[batches[0]]))
    if last < 0:
        raise UserError(f"{model.card['method']} computes no map of a face: there is nothing to draw")
    program = jit_for(model.mesh, lambda v, b, c: _relevance(task, kind, last, v, b, c))
    made = [program(variables, _batch(model, faces[rows]), jnp.asarray(wanted[rows])) for rows in batches]
    small, found = (
        np.concatenate([np.asarray(part) for part in parts])[: len(faces)] for parts in zip(*made, strict=True)
    )
    side = faces.shape[1:3]
    return Explanation(np.stack([_on_face(m, side, task.preprocessing.crop) for m in small]), wanted, found)


def overlay(face: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Returns a face uint8 [H, W, 1 or 3] in gray under its map [H, W]: blue for the class, orange against it."""
    gray = face.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    strength = np.clip(relevance / max(float(np.abs(relevance).max()), 1e-12), -1, 1)
    colors = 255 * np.asarray(DIVERGING(0.5 + 0.42 * np.sign(strength)))[..., :3]
    cover = COVER * np.abs(strength)[..., None]
    return np.round((1 - cover) * gray + cover * colors).astype(np.uint8)


def _batch(model: Trained, faces: np.ndarray) -> dict[str, jax.Array]:
    """Returns faces as a batch; for a method of clips each is a clip of one frame."""
    source = model.source_of(faces)
    fields = dict(source.arrays)
    if source.frames:
        fields |= {"frames": source.frames["frames"][:, None], "frame_mask": np.ones((len(faces), 1), bool)}
    return jax.tree.map(jnp.asarray, fields)


def _maps_in_order(visit: Any) -> Any:
    """Returns an interceptor that calls visit(number, map) for each map [B, h, w, P] of a module, in order."""
    number = -1

    def interceptor(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        nonlocal number
        out = call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(out, jax.Array) or out.ndim != 4 or out.shape[1] < 2:
            return out
        number += 1
        return visit(number, out)

    return interceptor


def _last_map(task: Any, variables: Any, batch: Any) -> int:
    """Returns which of the maps of a forward pass is the last one with a row for each face; -1 if there is none."""
    count, last = len(batch["index"]), -1

    def visit(number: int, out: jax.Array) -> jax.Array:
        nonlocal last
        last = number if out.shape[0] == count else last
        return out

    def forward(variables: Any, batch: Any) -> Any:
        with nn.intercept_methods(_maps_in_order(visit)):
            return task.model.apply(variables, model_input(task, batch, None), train=False)

    jax.eval_shape(forward, variables, batch)
    return last


def _relevance(
    task: Any, kind: str, last: int, variables: Any, batch: Any, classes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the maps [B, h, w] of the given classes [B], and the logits."""
    inputs = model_input(task, batch, None)

    def logit(change: jax.Array | None) -> tuple[jax.Array, Any]:
        kept = []

        def visit(number: int, out: jax.Array) -> jax.Array:
            if number != last:
                return out
            kept.append(out)
            return out if change is None else out + change

        with nn.intercept_methods(_maps_in_order(visit)):
            logits, _ = task.model.apply(variables, inputs, train=False)
        return jnp.take_along_axis(logits, classes[:, None], axis=1).sum(), (kept[0], logits)

    shape = jax.eval_shape(lambda: logit(None))[1][0]
    gradient, (found, logits) = jax.grad(logit, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    if kind == "gradcam":
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        return nn.relu((weights * found).astype(jnp.float32).sum(axis=-1)), logits.astype(jnp.float32)
    return (gradient * found).astype(jnp.float32).sum(axis=-1), logits.astype(jnp.float32)


def _on_face(small: np.ndarray, side: tuple[int, int], crop: int) -> np.ndarray:
    """Returns a map of the network's input as one of the face [H, W], of which the network sees the middle."""
    shown = np.zeros(side, np.float32)
    crop = crop or min(side)
    top, left = (side[0] - crop) // 2, (side[1] - crop) // 2
    shown[top : top + crop, left : left + crop] = cv2.resize(
        np.asarray(small, np.float32), (crop, crop), interpolation=cv2.INTER_LINEAR
    )
    return shown
