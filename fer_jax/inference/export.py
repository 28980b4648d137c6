"""`fer-jax export`: a trained model as one file for other programs, checked against the model before it is kept."""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.errors import UserError, first_line, nearest, writing
from fer_jax.evaluation.task import eval_step
from fer_jax.inference.trained import Trained
from fer_jax.nn.lowering import traced_for
from fer_jax.parsing import parse_json, read_bytes
from fer_jax.runs.model_file import write_model
from fer_jax.storage import write_whole

FACES = 64  # on which an exported model is compared with the model
LARGEST_DIFFERENCE = 1e-5  # of a probability
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
PROGRAM, CARD = "program.jax", "card.json"  # the members of a StableHLO file

Function = Callable[[np.ndarray], np.ndarray]


def export(model: Trained, form: str, path: pathlib.Path) -> str:
    """Writes a model file for other programs; returns a line that says what was written.

    Args:
        model: to be exported.
        form: one of `FORMS`.
        path: of the file, which exists only if its model predicts what `model` does.

    Raises:
        UserError: for another form, a method that cannot be exported, and a file whose predictions differ.
    """
    if form not in FORMS:
        raise UserError(f"there is no format '{form}'; {nearest(form, FORMS)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # A program sees each face once, also where evaluation averages magnified views of it.
    single = dataclasses.replace(model, task=dataclasses.replace(model.task, corner_evaluation=False))
    return FORMS[form](single, path)


def to_model_file(model: Trained, path: pathlib.Path) -> str:
    """Writes the model file (safetensors), which `fer_jax.load` reads."""
    write_model(path, model.variables, model.card)  # pyright: ignore[reportArgumentType]
    return f"{path}: the weights and what they belong to, for fer_jax.load"


def to_stablehlo(model: Trained, path: pathlib.Path) -> str:
    """Writes the program that predicts, with weights and preprocessing inside, for any number of faces.

    The file is a zip of the program, as `jax.export` serializes it, and the card as JSON. Its function maps cropped
    faces, uint8 [B, H, W, C] of the card's `data.picture`, to probabilities, float32 [B, classes].
    """
    faces, shape = _faces(model), model.card["data"]["picture"]
    (batch,) = jax.export.symbolic_shape("b")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        # An accelerator's form of each layer: that of a CPU is faster there, and not made for other devices.
        program = jax.jit(traced_for("any", _predicting(model)))
        exported = jax.export.export(program, platforms=PLATFORMS)(  # pyright: ignore[reportAttributeAccessIssue]
            jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
        )
        data = exported.serialize()
    except Exception as error:  # JAX raises what its tracing runs into
        raise UserError(f"{model.card['method']} cannot be exported as StableHLO ({first_line(error)})") from error
    card = dict(model.card) | {"config": None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(PROGRAM, bytes(data))
        file.writestr(CARD, json.dumps(card, indent=1))
    difference = float(np.abs(_called(bytes(data))(faces) - _probabilities(model, faces)).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise UserError(
            f"the exported model differs from {model.card['method']} by {difference:.2g} in a probability, more than "
            f"{LARGEST_DIFFERENCE:g}: it was not written"
        )
    with writing(path):
        write_whole(path, buffer.getvalue())
    return f"{path}: largest difference of a probability {difference:.1e} on {FACES} pictures"


FORMS: Mapping[str, Callable[[Trained, pathlib.Path], str]] = {"model": to_model_file, "stablehlo": to_stablehlo}
ENDINGS = {"model": ".safetensors", "stablehlo": ".stablehlo.zip"}


def read_stablehlo(path: str | pathlib.Path) -> tuple[Function, dict[str, Any]]:
    """Reads an exported StableHLO file.

    Returns:
        The function from faces, uint8 [B, H, W, C], to probabilities, float32 [B, classes], and the card.
    """
    data = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return _called(file.read(PROGRAM)), parse_json(file.read(CARD))
    except Exception as error:  # damaged archives lead to errors of zipfile, zlib and of JAX
        raise UserError(f"{path} is not an exported StableHLO model ({first_line(error)}): export it again") from error


def _called(data: bytes) -> Function:
    exported = jax.export.deserialize(bytearray(data))  # pyright: ignore[reportAttributeAccessIssue]
    return lambda faces: np.asarray(exported.call(faces))


def _predicting(model: Trained) -> Callable[[Any], jax.Array]:
    """Returns the function from cropped faces to probabilities, with the weights as constants."""
    fields = {name: values[:1] for name, values in model.source_of(_faces(model)[:1]).arrays.items() if name != "image"}

    def predict(faces: jax.Array) -> jax.Array:
        rows = {k: jnp.broadcast_to(v, (faces.shape[0], *v.shape[1:])) for k, v in fields.items()}
        return jax.nn.softmax(eval_step(model.task, model.variables, {**rows, "image": faces})["logits"])

    return predict


def _probabilities(model: Trained, faces: np.ndarray) -> np.ndarray:
    return np.array([row.probabilities for row in model.predict(faces, cropped=True)], np.float32)


def _faces(model: Trained) -> np.ndarray:
    """Pictures of blurred noise, uint8 [64, H, W, C]: what is compared needs no meaning, only contrast."""
    if model.task.method.measures or model.task.method.takes == "frames":
        raise UserError(f"{model.card['method']} is not exported: only methods that classify single pictures are")
    height, width, channels = model.card["data"]["picture"]
    coarse = np.random.default_rng(0).integers(0, 256, (FACES, 8, 8, channels))
    fine = coarse.repeat(-(-height // 8), axis=1).repeat(-(-width // 8), axis=2)
    return fine[:, :height, :width].astype(np.uint8)
