"""Where a model looks: class-activation maps of any method, and the method's own attention.

The gradient of a class's logit is taken at the last map [B, h, w, P] that the network computes (`maps['last']` of a
`Classifier`), so no method has to know of it.

    cam: gradient times activation, summed over the channels at each place (HiResCAM, Draelos and Carin 2020). Where
        the classifier is linear on the mean of the map, this is the class-activation map of Zhou et al. (CVPR 2016):
        its sum is the logit without the bias.
    gradcam: the gradient is averaged over all places first, and negative values of the result are set to 0 (Grad-CAM,
        Selvaraju et al., ICCV 2017).
    detail: as cam, at the last map with at least `CELLS` cells along each side: finer than cam if the last map is
        coarse, but then no longer exact.
    attention: the method's own weight of each place, or of each frame of a clip (`Method.attention`); the same for
        every class.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8

from fer_jax.data.sources.clips import middle_faces
from fer_jax.data.sources.source import Source
from fer_jax.engine.compiler import once_options, platform_of
from fer_jax.engine.mesh import put_replicated, replicated
from fer_jax.errors import UserError, nearest
from fer_jax.evaluation.matching import Match
from fer_jax.evaluation.predictions import PredictionRow
from fer_jax.evaluation.task import Task, model_input
from fer_jax.inference import explain_scores
from fer_jax.inference.predict import Prediction
from fer_jax.labels import MANY_CLASSES
from fer_jax.methods.class_maps import visiting
from fer_jax.nn.lowering import traced_for
from fer_jax.report.looking import Looks

if TYPE_CHECKING:
    from fer_jax.inference.trained import Trained

KINDS = ("detail", "cam", "gradcam", "attention")
CELLS = 6
AT_ONCE = 32  # faces
MOST_FACES = 1000  # found in pictures, in one call
SHOWN = 4  # test faces of each class


@dataclasses.dataclass(frozen=True)
class ExplainedFace:
    """A row of the prediction table and where the model looked for it.

    Attributes:
        row: as `Trained.predict` returns it; `frame_weights` are the attention of a method that weighs frames.
        face: as the model was given it, uint8 [H, W, 1 or 3]; of a clip its frames, uint8 [T, H, W, 3], black without
            a face; None where the row has no face.
        map: float32 [H, W] over the face, of a clip [T, H, W], each frame by itself. Above 0 speaks for the predicted
            class (the first one where all logits are equal), below 0 against it; 0 where the network does not see the
            face. Attention is 0 or more. None where the row has no face, and for attention to frames.
    """

    row: PredictionRow
    face: np.ndarray | None = None
    map: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Maps of how much each place of a face contributes to a class.

    Attributes:
        maps: in the size of the faces (see `ExplainedFace`).
        classes: which class each map explains.
        logits: of the faces.
    """

    maps: Float[np.ndarray, "N H W"]
    classes: Int[np.ndarray, " N"]
    logits: Float[np.ndarray, "N C"]


def check_kind(model: Trained, kind: str) -> None:
    """Raises UserError for an unknown kind, and one that the model's method does not have."""
    if kind not in KINDS:
        raise UserError(f"there is no explanation of the kind '{kind}'; {nearest(kind, KINDS)}")
    name, method = model.card["method"], model.task.method
    if method.measures:
        raise UserError(f"{name} predicts no classes: there is nothing to explain")
    if method.fit:
        raise UserError(f"{name} is fitted, not trained by gradients: it has no feature map to explain")
    if kind == "attention" and not method.attention:
        raise UserError(f"{name} has no attention over places or frames to show: give detail, cam or gradcam")


def explain_predictions(model: Trained, predictions: Iterable[Prediction], kind: str) -> list[ExplainedFace]:
    """Explains the predicted class of each row; see `Trained.explain`."""
    found: list[tuple[PredictionRow, np.ndarray | None]] = []
    for prediction in predictions:
        if len(found) > MOST_FACES:
            raise UserError(f"more than {MOST_FACES:,} faces: explain fewer pictures at once, or fewer frames (--fps)")
        found += zip(prediction.rows, prediction.faces or [None], strict=True)
    faces = [face if face.ndim == 4 else face[None] for _, face in found if face is not None]
    if not faces or (kind == "attention" and model.task.method.takes == "frames"):
        if any(face is not None and not row.frame_weights for row, face in found):
            raise UserError(f"{model.card['method']} weights the frames of a clip: give a video")
        return [ExplainedFace(row, face) for row, face in found]
    expressions = [model.classes.index(row.expression or model.classes[0]) for row, face in found if face is not None]
    classes = np.repeat(np.asarray(expressions, np.int32), [len(frames) for frames in faces])
    maps = iter(explain(model, np.concatenate(faces), classes, kind).maps)

    def map_of(row: PredictionRow, face: np.ndarray) -> np.ndarray:
        """A frame of a clip without a face has no weight, and its map is 0."""
        return next(maps) if face.ndim == 3 else np.stack([next(maps) * (weight > 0) for weight in row.frame_weights])

    return [ExplainedFace(row, face, None if face is None else map_of(row, face)) for row, face in found]


def explain(
    model: Trained,
    faces: Source | UInt8[np.ndarray, "N H W K"],
    classes: Int[np.ndarray, " N"] | None = None,
    kind: str = "detail",
    variables: Any = None,
) -> Explanation:
    """Explains the predictions of cropped faces.

    Args:
        model: of any method that predicts classes from maps.
        faces: as for `Trained.predict`, or the images of a data set; for a method of clips each is a clip of one frame.
        classes: the classes to explain; those that are predicted by default.
        kind: one of `KINDS`.
        variables: to use instead of the trained ones, such as those of an untrained model.

    Raises:
        UserError: for an unknown kind, one that the method does not have, and a method that computes no map or predicts
            no classes.
    """
    check_kind(model, kind)
    variables = model.placed if variables is None else put_replicated(model.mesh, variables)
    source = faces if isinstance(faces, Source) else model.source_of(faces)
    outputs = None
    if classes is None or kind == "attention":
        outputs = model.outputs(source, (model.task.method.attention,) if kind == "attention" else (), variables)
    wanted = np.asarray(outputs["logits"].argmax(axis=1) if classes is None and outputs else classes, np.int32)
    task = model.task_for(source.picture_shape)
    if kind == "attention" and outputs:
        weights = outputs[task.method.attention]
        if weights.ndim != 3:
            raise UserError(f"{model.card['method']} weights the frames of a clip, but these are single faces")
        maps = on_faces(weights, source.picture_shape, task, cv2.INTER_NEAREST)  # patches have edges
        return Explanation(maps, wanted, outputs["logits"])
    made = class_maps(task, model.mesh, variables, source, wanted, kind)
    if made is None:
        raise UserError(f"{model.card['method']} computes no feature map: there is nothing to draw")
    return Explanation(on_faces(made[0], source.picture_shape, task), wanted, made[1])


def class_maps(
    task: Task, mesh: Mesh, variables: Any, source: Source, classes: Int[np.ndarray, " N"], kind: str = "detail"
) -> tuple[Float[np.ndarray, "N h w"], Float[np.ndarray, "N C"]] | None:
    """Returns the maps of the given classes for all images of a source, and their logits; None without any map."""
    count = len(source)
    size = min(AT_ONCE, 1 << (count - 1).bit_length())
    # Batches of one size: the last one is filled up with faces from its beginning.
    batches = [np.resize(np.arange(b, min(b + size, count)), size) for b in range(0, count, size)]
    last = _last_map(task, variables, _batch(source, batches[0]), CELLS if kind == "detail" else 2)
    if last < 0:
        return None
    traced = traced_for(platform_of(mesh), lambda v, batch, c: _relevance(task, kind, last, v, batch, c))
    # It runs a few times: compiling it with all optimizations takes twice as long as it saves.
    program = jax.jit(traced, out_shardings=replicated(mesh), compiler_options=once_options(mesh))
    made = [program(variables, *put_replicated(mesh, (_batch(source, rows), classes[rows]))) for rows in batches]
    maps, logits = (np.concatenate([np.asarray(part) for part in parts])[:count] for parts in zip(*made, strict=True))
    if broken := int((~np.isfinite(maps)).any(axis=(1, 2)).sum()):
        print(f"note: the gradients of {broken} of {count} faces are not finite: their maps are black", flush=True)
    return maps, logits


def look(task: Task, mesh: Mesh, variables: Any, match: Match) -> Looks | None:
    """Returns where a model looks on a few test faces of each class, for the report.

    None if it computes no map, and for very many classes. Runs on one device, because only the process that writes the
    report needs it.
    """
    source, mesh = match.source, Mesh(np.asarray(mesh.local_devices[:1]), mesh.axis_names)
    if task.method.measures or len(source.classes) > MANY_CLASSES:
        return None
    labels = source.arrays["label"]
    rows = np.concatenate([np.flatnonzero(labels == c)[:SHOWN] for c in range(len(source.classes))])
    few = source.select(rows)
    classes = match.columns[few.arrays["label"]].astype(np.int32)
    made = class_maps(task, mesh, jax.tree.map(np.asarray, variables), few, classes, "detail")
    if made is None:
        return None
    faces = few.pictures()
    maps = on_faces(made[0], faces.shape[1:], task)
    scores: dict[str, tuple[float, float]] = {}
    units, landmarks = few.arrays.get("action_units"), few.arrays.get("landmarks")
    if units is not None and landmarks is not None and units.shape[1:] == (len(explain_scores.UNITS),):
        regions = explain_scores.unit_regions(units, landmarks, faces.shape[1:3])
        drawn = on_faces(np.random.default_rng(0).random(made[0].shape, np.float32), faces.shape[1:], task)
        ours, theirs = (explain_scores.region_scores(some, regions) for some in (maps, drawn))
        scores = {name: (ours[name], theirs[name]) for name in ours}
    return Looks(source.classes, few.arrays["label"], match.columns, made[1], faces, maps, scores)


def on_faces(
    maps: Float[np.ndarray, "N h w"], picture_shape: tuple[int, ...], task: Task, how: int = cv2.INTER_LINEAR
) -> Float[np.ndarray, "N H W"]:
    """Returns maps of the network's input as maps of pictures (H, W, ...), of which the network sees the middle."""
    height, width = picture_shape[:2]
    shown = np.zeros((len(maps), height, width), np.float32)
    crop = task.preprocessing.crop
    rows, columns = (crop, crop) if crop else (height, width)
    top, left = (height - rows) // 2, (width - columns) // 2
    for face, small in zip(shown, maps, strict=True):
        face[top : top + rows, left : left + columns] = cv2.resize(
            np.asarray(small, np.float32), (columns, rows), interpolation=how
        )
    return shown


def _batch(source: Source, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns images as a batch; of clips the middle face of each, as a clip of one frame."""
    fields = {name: values[rows] for name, values in source.arrays.items()}
    if source.frames:
        fields |= {"frames": source.pictures(rows)[:, None], "frame_mask": np.ones((len(rows), 1), bool)}
    if "points" in source.frames:
        middle = middle_faces(source.arrays, source.frames["frame_mask"])[rows]
        fields["points"] = source.frames["points"][middle][:, None]
    return fields


def _last_map(task: Task, variables: Any, batch: Any, cells: int = 2) -> int:
    """Returns which of the maps of a forward pass the method names its last; -1 if there is none.

    If that one is the output of no module, or has fewer `cells` along a side, it is the last map before it with a row
    for each face and as many cells; if none has, that with the most.
    """
    seen: list[jax.Array] = []
    named = None

    def forward(variables: Any, batch: Any) -> jax.Array:
        nonlocal named
        with nn.intercept_methods(visiting(lambda out: seen.append(out) or out)):
            logits, aux = task.model.apply(variables, model_input(task, batch, None), train=False)
        named = aux.get("maps", {}).get("last")
        return logits

    jax.eval_shape(forward, variables, batch)
    end = next((number for number, out in enumerate(seen) if out is named), len(seen) - 1)
    faces = len(batch["index"])
    before = [number for number, out in enumerate(seen[: end + 1]) if len(out) == faces and out.shape[1] > 1]
    return max(before, key=lambda number: (min(*seen[number].shape[1:3], cells), number), default=-1)


def _relevance(
    task: Task, kind: str, last: int, variables: Any, batch: Any, classes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the maps [B, h, w] of the given classes [B], and the logits."""
    inputs = model_input(task, batch, None)

    def logit(change: jax.Array | None) -> tuple[jax.Array, Any]:
        kept, numbers = [], itertools.count()

        def visit(out: jax.Array) -> jax.Array:
            if next(numbers) != last:
                return out
            kept.append(out)
            return out if change is None else out + change

        with nn.intercept_methods(visiting(visit)):
            logits, _ = task.model.apply(variables, inputs, train=False)
        return jnp.take_along_axis(logits, classes[:, None], axis=1).sum(), (kept[0], logits)

    shape = jax.eval_shape(lambda: logit(None))[1][0]
    gradient, (found, logits) = jax.grad(logit, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    if kind == "gradcam":
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        return nn.relu((weights * found).astype(jnp.float32).sum(axis=-1)), logits.astype(jnp.float32)
    return (gradient * found).astype(jnp.float32).sum(axis=-1), logits.astype(jnp.float32)
