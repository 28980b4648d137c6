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
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from fer_jax.errors import UserError, reading, writing
from fer_jax.storage import looks_like, write_whole

FORMAT = 1
MODEL = "model.safetensors"  # in a work directory
REMAKE = "delete results.json beside it and start the command that trained it again: nothing is trained again"
METADATA, SHA256 = "fer_jax", "sha256"  # the entries of the metadata that hold the card, and the digest of everything

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


def read_model(path: epath.Path) -> tuple[Variables, Card]:
    """Reads a model file.

    Returns:
        The variables as NumPy arrays, and the card.

    Raises:
        UserError: if the file is missing, damaged, written in another format, or no model file at all.
    """
    with reading(path):
        data = path.read_bytes()
    if data[8:9] != b"{":
        raise UserError(f"{path} is not a model file ({looks_like(data)}): give a {MODEL}, or the folder of a run")
    damaged = f"{path} is incomplete or damaged: copy it again, or {REMAKE}"
    try:
        arrays = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{damaged} ({error})") from error
    metadata = header.get("__metadata__", {})
    if METADATA not in metadata:
        raise UserError(f"{path} holds weights but does not say of which model: give it as --config.init_from instead")
    text = metadata[METADATA]
    if metadata.get(SHA256) != _sha256(text, arrays):
        raise UserError(damaged)
    card = json.loads(text)
    if card["format"] != FORMAT:
        raise UserError(
            f"{path} has the model format {card['format']}, but this version of fer_jax reads format {FORMAT}: read it "
            f"with fer_jax {card['versions']['fer_jax']}"
        )
    return flax.traverse_util.unflatten_dict(arrays, sep="/"), card


def is_model(path: epath.Path) -> bool:
    """Whether a file says which model its weights are of; False if it cannot be read."""
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            return METADATA in (file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return False


def _sha256(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(name.encode() + repr(arrays[name].shape).encode() + arrays[name].tobytes())
    return digest.hexdigest()
