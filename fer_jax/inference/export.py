"""`fer-jax export`: a trained model as one file for other programs, checked against the model before it is kept."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from fer_jax.data.augment.inputs import CORNER_VIEWS, corner_view
from fer_jax.data.sources.points import MEASURED
from fer_jax.errors import UserError, first_line, nearest, told, writing
from fer_jax.evaluation.evaluate import with_corners
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.evaluation.task import Batch, eval_step, model_input
from fer_jax.inference.trained import Trained
from fer_jax.nn.lowering import traced_for
from fer_jax.parsing import parse_json, read_bytes
from fer_jax.runs.model_file import METADATA, write_model
from fer_jax.storage import write_whole

FACES = 64  # on which an exported model is compared with the model
LARGEST_DIFFERENCE = {"stablehlo": 1e-5, "onnx": 1e-4}  # of a probability
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
PROGRAM, CARD = "program.jax", "card.json"  # the members of a StableHLO file

Function = Callable[[np.ndarray], np.ndarray]


def export(model: Trained, form: str, path: pathlib.Path) -> str:
    """Exports a model to a file for other programs; returns a line that says what was written.

    Args:
        model: to be exported.
        form: one of `FORMS`.
        path: of the file, which is kept only if its predictions agree with those of `model`.

    Raises:
        UserError: for another form, a method that cannot be exported, and a file whose predictions differ.
    """
    if form not in FORMS:
        raise UserError(f"there is no format '{form}'; {nearest(form, FORMS)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return FORMS[form](model, path)


def to_model_file(model: Trained, path: pathlib.Path) -> str:
    """Writes the model file (safetensors), which `fer_jax.load` reads."""
    write_model(path, model.variables, model.card)  # pyright: ignore[reportArgumentType]
    return f"{path}: the weights and what they belong to, for fer_jax.load"


def to_stablehlo(model: Trained, path: pathlib.Path) -> str:
    """Writes the prediction program, including weights and preprocessing, for any number of faces.

    The file is a zip of the program, as `jax.export` serializes it, and the card as JSON. Its function maps cropped
    faces, uint8 [B, H, W, C] of the card's `data.picture`, to probabilities, float32 [B, classes]. For a model of clips
    it takes the frames of one clip that have a face, uint8 [T, H, W, C], and returns [1, classes].
    """
    # An accelerator's form of each layer: that of a CPU is faster there, and not made for other devices.
    argument = _argument(model)
    program = jax.jit(traced_for("any", _predicting(model)))
    with _conversion(model, "StableHLO"):
        exported = jax.export.export(program, platforms=PLATFORMS)(argument)  # pyright: ignore[reportAttributeAccessIssue]
        data = bytes(exported.serialize())
    difference = _difference(model, _called(data), LARGEST_DIFFERENCE["stablehlo"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(PROGRAM, data)
        file.writestr(CARD, json.dumps(_card(model), indent=1))
    with writing(path):
        write_whole(path, buffer.getvalue())
    return f"{path}: {difference}"


def to_onnx(model: Trained, path: pathlib.Path) -> str:
    """Writes the program of `to_stablehlo` as ONNX, for onnxruntime on other devices or in a browser.

    Its input is `faces`, its output `probabilities`; the entry `fer_jax` of its metadata is the card as JSON.
    """
    try:
        import jax2onnx
        import onnxruntime
    except ImportError as error:
        raise UserError("the format onnx needs jax2onnx and onnxruntime: pip install 'fer_jax[onnx]'") from error
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of each value whose type it need not know
    argument = _argument(model)
    with _conversion(model, "ONNX"):
        # Traced first, because jax2onnx replaces functions of JAX and Flax by others, which ignore some arguments.
        traced = jax.make_jaxpr(traced_for("onnx", _predicting(model)))(argument)
        names = {"input_names": ["faces"], "output_names": ["probabilities"]}
        exported = jax2onnx.to_onnx(jaxpr_as_fun(traced), [argument], model_name=model.card["method"], **names)
        exported.metadata_props.add(key=METADATA, value=json.dumps(_card(model)))
        data = exported.SerializeToString()
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 3  # errors: what it removes from a program is no warning to a user
        session = onnxruntime.InferenceSession(data, quiet, providers=["CPUExecutionProvider"])
        difference = _difference(model, lambda x: session.run(None, {"faces": x})[0], LARGEST_DIFFERENCE["onnx"])
    with writing(path):
        write_whole(path, data)
    return f"{path}: {difference}"


FORMS: Mapping[str, Callable[[Trained, pathlib.Path], str]] = {
    "model": to_model_file,
    "stablehlo": to_stablehlo,
    "onnx": to_onnx,
}
ENDINGS = {"model": ".safetensors", "stablehlo": ".stablehlo.zip", "onnx": ".onnx"}


def read_stablehlo(path: str | pathlib.Path) -> tuple[Function, dict[str, Any]]:
    """Reads an exported StableHLO file.

    Returns:
        The function from faces, uint8 [B, H, W, C], to probabilities, float32 [B, classes], and the card.
    """
    data = read_bytes(path)
    # Damaged archives lead to errors of zipfile, zlib and of JAX.
    with told(lambda error: f"{path} is not an exported StableHLO model ({first_line(error)}): export it again"):
        file = zipfile.ZipFile(io.BytesIO(data))
        return _called(file.read(PROGRAM)), parse_json(file.read(CARD))


def _called(data: bytes) -> Function:
    exported = jax.export.deserialize(bytearray(data))  # pyright: ignore[reportAttributeAccessIssue]
    return lambda faces: np.asarray(exported.call(faces))


def _conversion(model: Trained, form: str) -> AbstractContextManager[None]:
    """Turns whatever a converter raises into one line."""
    return told(lambda error: f"{model.card['method']} cannot be exported as {form} ({first_line(error)})")


def _card(model: Trained) -> dict[str, Any]:
    """Returns the card with the geometry of crops, as `fer_jax.faces.alignment.template_points` takes it."""
    return dict(model.card) | {"config": None, "crop": dict(model.card["crop"]) | dataclasses.asdict(model.crops)}


def _argument(model: Trained) -> jax.ShapeDtypeStruct:
    """Returns what an exported function takes: any number of cropped faces."""
    if model.task.method.measures:
        raise UserError(f"{model.card['method']} cannot be exported: it does not predict classes")
    if model.config.data.points in MEASURED:
        raise UserError(
            f"{model.card['method']} cannot be exported: it needs landmarks, but an exported program takes pictures"
        )
    (count,) = jax.export.symbolic_shape("b")  # pyright: ignore[reportAttributeAccessIssue]
    return jax.ShapeDtypeStruct((count, *model.card["data"]["picture"]), jnp.uint8)


def _predicting(model: Trained) -> Callable[[Any], jax.Array]:
    """Returns the function from cropped faces to probabilities, with the weights as constants."""
    task, variables = model.task, model.variables
    example = np.zeros((1, *model.card["data"]["picture"]), np.uint8)
    fields = {name: values[:1] for name, values in model.source_of(example).arrays.items()}

    def of_views(batch: Batch) -> jax.Array:
        """All views go through the network together, so that its weights are in the program once."""
        inputs = model_input(task, batch, None)
        # A number of NumPy, so that its arithmetic is not in the program: jax2onnx converts // wrongly.
        corners = [corner_view(inputs, np.int32(n), task.point_mirror) for n in range(CORNER_VIEWS)]  # pyright: ignore[reportArgumentType]
        logits, _ = task.model.apply(
            variables, jax.tree.map(lambda *x: jnp.concatenate(x), inputs, *corners), train=False
        )
        views = logits.astype(jnp.float32).reshape(CORNER_VIEWS + 1, -1, logits.shape[-1])
        return with_corners(views[0], jax.nn.log_softmax(views[1:]))

    def predict(faces: jax.Array) -> jax.Array:
        if task.method.takes == "frames":
            batch = {"frames": faces[None], "frame_mask": jnp.ones((1, faces.shape[0]), bool)}
        else:
            rows = {k: jnp.broadcast_to(v, (faces.shape[0], *v.shape[1:])) for k, v in fields.items() if k != "image"}
            batch = rows | {"image": faces}
        return jax.nn.softmax(
            of_views(batch) if task.corner_evaluation else eval_step(task, variables, batch)["logits"]
        )

    return predict


def _difference(model: Trained, function: Function, most: float) -> str:
    """Compares an exported function with the model, on one picture and on many; returns what it found.

    Raises:
        UserError: if a probability differs by more than `most`.
    """
    faces = _faces(model.card["data"]["picture"])
    difference = np.max([np.abs(function(x) - _probabilities(model, x)).max() for x in (faces[:1], faces[1:])])
    if not difference <= most:
        raise UserError(
            f"the exported model differs from {model.card['method']} by {difference:.2g} in a probability, more than "
            f"{most:g}: it was not written"
        )
    return f"largest difference of a probability {difference:.1e} on {FACES} pictures"


def _probabilities(model: Trained, faces: np.ndarray) -> np.ndarray:
    """Returns what the model itself says of faces, or of the frames of one clip."""
    mask = np.ones(len(faces), bool) if model.task.method.takes == "frames" else None
    return np.exp(log_softmax(model.logits(model.source_of(faces, mask))))


def _faces(picture: Sequence[int]) -> np.ndarray:
    """Pictures of blurred noise, uint8 [64, H, W, C]: what is compared needs no meaning, only contrast."""
    height, width, channels = picture
    coarse = np.random.default_rng(0).integers(0, 256, (FACES, 8, 8, channels))
    fine = coarse.repeat(-(-height // 8), axis=1).repeat(-(-width // 8), axis=2)
    return fine[:, :height, :width].astype(np.uint8)
