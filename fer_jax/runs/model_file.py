"""The model file: the weights of a trained model as safetensors, and everything else it needs as JSON metadata.

Reading one runs no code, and needs neither the data set nor the optimizer that the model was trained with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from fer_jax.errors import UserError, writing
from fer_jax.parsing import check_regular, looks_like, parse_json, read_bytes
from fer_jax.storage import write_whole

FORMAT = 1
MODEL = "model.safetensors"  # in a work directory
REMAKE = "delete results.json beside it and start the command that trained it again: nothing is trained again"
METADATA, SHA256 = "fer_jax", "sha256"  # the entries of the metadata that hold the card, and the digest of everything

# `safetensors.numpy` reads no bfloat16.
DTYPES: Mapping[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
FLOATING = tuple(DTYPES.values())[:4]

Variables = Mapping[str, Any]  # {'params': ..., 'batch_stats': ...}
Card = dict[str, Any]


def write_model(path: epath.Path, variables: Variables, card: Mapping[str, Any]) -> None:
    """Writes a model file, whole or not at all.

    Args:
        path: of the file.
        variables: what the model is evaluated with: parameters and other collections.
        card: plain JSON values (see `trained.Trained`).
    """
    flat = flax.traverse_util.flatten_dict(jax.device_get(dict(variables)), sep="/")
    arrays = {name: np.asarray(values, order="C") for name, values in flat.items()}
    text = json.dumps(dict(card) | {"format": FORMAT})
    with writing(path):
        write_whole(path, safetensors.numpy.save(arrays, {METADATA: text, SHA256: _sha256(text, arrays)}))


def halved(variables: Variables) -> Variables:
    """Returns the variables with their parameters rounded to bfloat16, which takes half the space."""
    params = jax.tree.map(lambda values: np.asarray(values, ml_dtypes.bfloat16), variables["params"])
    return {**variables, "params": params}


def read_model(path: epath.Path) -> tuple[Variables, Card]:
    """Reads a model file.

    Returns:
        The variables as NumPy arrays (float32 where the file has bfloat16), and the card.

    Raises:
        UserError: if the file is missing, damaged, written in another format, or no model file at all.
    """
    data = read_bytes(path)
    if data[8:9] != b"{":
        raise UserError(f"{path} is not a model file ({looks_like(data)}): give a {MODEL}, or the folder of a run")
    damaged = f"{path} is incomplete or damaged: copy it again, or {REMAKE}"
    try:
        arrays = tensors(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except ValueError as error:
        raise UserError(f"{damaged} ({error})") from error
    metadata = header.get("__metadata__", {})
    if METADATA not in metadata:
        raise UserError(f"{path} holds weights but does not say of which model: give it as --config.init_from instead")
    text = metadata[METADATA]
    if metadata.get(SHA256) != _sha256(text, arrays):
        raise UserError(damaged)
    card = parse_json(text)
    if card["format"] != FORMAT:
        raise UserError(
            f"{path} has the model format {card['format']}, but this version of fer_jax reads format {FORMAT}: read it "
            f"with fer_jax {card['versions']['fer_jax']}"
        )
    wide = {n: v.astype(np.float32) if v.dtype == ml_dtypes.bfloat16 else v for n, v in arrays.items()}
    return flax.traverse_util.unflatten_dict(wide, sep="/"), card


def is_model(path: epath.Path) -> bool:
    """Whether a file says which model its weights are of; False if it cannot be read."""
    try:
        check_regular(path)
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            return METADATA in (file.metadata() or {})
    except (OSError, UserError, safetensors.SafetensorError):
        return False


def tensors(data: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a .safetensors file, by name; raises ValueError if it is damaged or has unknown types."""
    try:
        entries = sorted(safetensors.deserialize(data), key=lambda entry: entry[0])  # they come in any order
        return {n: np.frombuffer(e["data"], DTYPES[e["dtype"]]).reshape(e["shape"]) for n, e in entries}
    except KeyError as error:
        raise ValueError(f"type {error}; supported are {', '.join(DTYPES)}") from error
    except (safetensors.SafetensorError, OverflowError) as error:
        raise ValueError(str(error)) from error


def _sha256(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(name.encode() + repr(arrays[name].shape).encode() + arrays[name].tobytes())
    return digest.hexdigest()
