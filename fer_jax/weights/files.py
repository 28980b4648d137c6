"""Reads weight files as named arrays without running code from them.

`.safetensors` files hold no code. A PyTorch file is a pickle, which may call any function: only PyTorch's restricted
reader (`weights_only=True`) opens it, so those files need the extra `[torch]`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_jax.errors import UserError, nearest
from fer_jax.parsing import looks_like, read_bytes
from fer_jax.runs.model_file import FLOATING, tensors
from fer_jax.storage import reachable

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")  # entries of a checkpoint that hold the weights
MAX_NESTING = 4  # a file may contain itself
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's files begin, since version 1.6 and before
DAMAGED = "the file is incomplete or damaged; download it again"
STORE_WEIGHTS = "save the weights alone where the file was made: torch.save(model.state_dict(), ...)"


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """The content of a weight file.

    Attributes:
        path: of the file.
        kind: 'safetensors' or 'PyTorch'.
        sha256: of the whole file.
        arrays: by name; floating-point arrays are float32, whatever the file stores.
    """

    path: str
    kind: str
    sha256: str
    arrays: Mapping[str, np.ndarray]


def read_weights(path: str) -> WeightFile:
    """Reads a weight file. Its content decides what it is, not its name.

    Raises:
        UserError: if the file is missing, of another kind or damaged, if reading it would run code, or if a weight is
            NaN or infinite.
    """
    place = reachable(path, "config.init_from")
    if not place.exists():
        others = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        raise UserError(f"config.init_from: there is no file {path}; {nearest(place.name, others)}")
    data = read_bytes(place)
    if data[8:9] == b"{":  # tested first: the length in front of it may look like the start of a pickle
        kind, arrays = "safetensors", _safetensors(data, path)
    elif data.startswith(PICKLE) or (data.startswith(ZIP) and b"data.pkl" in data):
        kind, arrays = "PyTorch", _torch(data, path)
    else:
        raise UserError(
            f"config.init_from: {path} ({looks_like(data)}) is not a weight file: give a .safetensors file, a PyTorch "
            ".pth or .pt file, or the work directory of a run"
        )
    for name, array in arrays.items():
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise UserError(f"config.init_from: {name} in {path} has values that are not finite: {DAMAGED}")
        if name.endswith("running_var") and (array < 0).any():
            raise UserError(f"config.init_from: {name} in {path} has negative variances: {DAMAGED}")
    return WeightFile(path, kind, hashlib.sha256(data).hexdigest(), arrays)


def _safetensors(data: bytes, path: str) -> dict[str, np.ndarray]:
    try:
        arrays = tensors(data)
    except ValueError as error:
        raise UserError(f"config.init_from: cannot read {path} ({error}): {DAMAGED}") from error
    return {name: array.astype(np.float32) if array.dtype in FLOATING else array for name, array in arrays.items()}


def _torch(data: bytes, path: str) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"config.init_from: reading {path} needs PyTorch: pip install 'fer_jax[torch]', or give a .safetensors file"
        ) from error
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises many types
        reason = DAMAGED
        if re.search("TorchScript|weights.only", str(error), re.IGNORECASE):
            culprit = re.search(r"GLOBAL (\S+)", str(error))
            more = f"more than weights ({culprit[1]})" if culprit else "more than weights"
            reason = f"it holds {more}, and reading that could run code; {STORE_WEIGHTS}"
        raise UserError(f"config.init_from: cannot read {path}: {reason}") from error
    arrays = {}
    for name, tensor in _state_dict(content, path, torch.Tensor).items():
        if not tensor.is_sparse and tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise UserError(f"config.init_from: {name} in {path} repeats its numbers: {STORE_WEIGHTS}")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise UserError(f"config.init_from: {name} in {path} is sparse, quantized or complex, which is unsupported")
        tensor = tensor.detach()
        arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()
    return arrays


def _state_dict(content: Any, path: str, tensor: type) -> dict[str, Any]:
    """Returns the tensors of a state_dict, or of the entry of a checkpoint that holds one."""
    for _ in range(MAX_NESTING):
        if not isinstance(content, Mapping):
            break
        inner = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            if tensors := {str(name): value for name, value in content.items() if isinstance(value, tensor)}:
                return tensors
            break
        content = inner[0]
    raise UserError(
        f"config.init_from: {path} holds no named weights, neither directly nor under {', '.join(WRAPPERS)}; "
        f"{STORE_WEIGHTS}"
    )
