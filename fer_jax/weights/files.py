"""Files of weights as named arrays, without any framework's help where that is possible, and never running their code.

`.safetensors` is read here in NumPy: its format is a length, a JSON header and raw bytes, so the reader is shorter
than the care that one more compiled dependency takes, it checks every byte range before it touches it, and its errors
can say what to do. PyTorch's `.pth` is a zip around a pickle, which may name any function; PyTorch's own restricted
reader (`weights_only=True`) is trusted with it and nothing else, so those files need the extra `[torch]`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from fer_jax.errors import UserError, first_line, nearest

# Types of a safetensors header: those of weights and of counters.
TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
LONGEST_HEADER = 100_000_000  # bytes, as the format says
# Under which names training scripts store the weights, beside epoch and optimiser.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")
NESTING = 4  # of such entries, at most: a file may also hold itself
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's files begin, since version 1.6 and before
ZIPPED_PICKLE = b"data.pkl"  # how the name of a member of such a zip ends
DAMAGED = "it is cut short or damaged: get it again"


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: of the file.
        kind: 'safetensors' or 'PyTorch'.
        sha256: of the whole file.
        arrays: by name, in the order of the file; floating types are float32, whatever the file stores.
    """

    path: str
    kind: str
    sha256: str
    arrays: Mapping[str, np.ndarray]


def read_weights(path: str) -> WeightFile:
    """Reads a file of weights; what it is says its content, not its name.

    Raises:
        UserError: if there is no such file, if it is of another kind or damaged, if reading it would run code, and if
            a weight is not finite.
    """
    place = epath.Path(path).expanduser()
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        there = [p.name for p in place.parent.iterdir()] if place.parent.is_dir() else []
        raise UserError(f"config.init_from: there is no file {path}; {nearest(place.name, there)}") from None
    except OSError as error:
        raise UserError(f"config.init_from: cannot read {path}: {error.strerror or error}") from error
    if data[8:9] == b"{":  # asked first: the length before it may begin like a pickle, which has something else here
        kind, arrays = "safetensors", _safetensors(data, path)
    elif data.startswith(PICKLE) or (data.startswith(ZIP) and ZIPPED_PICKLE in data):
        kind, arrays = "PyTorch", _torch(data, path)
    else:
        raise UserError(
            f"config.init_from: {path} ({_seems(data)}) is no file of weights: give a .safetensors file, "
            "PyTorch's .pth or .pt, or the work directory of a run"
        )
    arrays = {name: _float32(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise UserError(f"config.init_from: {name} in {path} is not finite: {DAMAGED}")
    return WeightFile(path, kind, hashlib.sha256(data).hexdigest(), arrays)


def _safetensors(data: bytes, path: str) -> dict[str, np.ndarray]:
    """Reads 8 bytes of header length, the header {name: {dtype, shape, data_offsets}} and the bytes it describes."""
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(LONGEST_HEADER, len(data) - 8):
        raise UserError(
            f"config.init_from: {path} is no whole .safetensors file (its header should have {length} bytes, the file "
            f"has {len(data)}): {DAMAGED}"
        )
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_without_repeats)
        header.pop("__metadata__", None)
        entries = {name: _Entry.of(fields) for name, fields in header.items()}
        _check_cover([*entries.values()], len(data) - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"config.init_from: the header of {path} is wrong ({first_line(error)}): {DAMAGED}") from error
    start = 8 + length
    return {
        name: np.frombuffer(data, entry.dtype, math.prod(entry.shape), start + entry.begin).reshape(entry.shape)
        for name, entry in entries.items()
    }


@dataclasses.dataclass(frozen=True)
class _Entry:
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> _Entry:
        if fields["dtype"] not in TYPES:
            raise ValueError(f"weights of type {fields['dtype']} are not read; known: {', '.join(TYPES)}")
        shape, (begin, end) = fields["shape"], fields["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError(f"shape {shape} and offsets {[begin, end]} must be whole numbers from 0")
        entry = cls(TYPES[fields["dtype"]], tuple(shape), begin, end)
        if end - begin != math.prod(shape) * entry.dtype.itemsize:
            raise ValueError(f"{end - begin} bytes cannot be {shape} numbers of type {fields['dtype']}")
        return entry


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name occurs twice")
    return names


def _check_cover(entries: list[_Entry], size: int) -> None:
    """Refuses arrays that overlap, leave holes or end elsewhere than the file: each byte belongs to one of them."""
    position = 0
    for entry in sorted(entries, key=lambda e: (e.begin, e.end)):
        if entry.begin != position:
            raise ValueError(f"an array begins at byte {entry.begin}, not at {position}")
        position = entry.end
    if position != size:
        raise ValueError(f"the arrays should have {position} bytes, the file holds {size}")


def _torch(data: bytes, path: str) -> dict[str, np.ndarray]:
    """Reads the tensors of a PyTorch file through PyTorch's reader, which builds tensors and plain containers only."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"config.init_from: reading {path} needs PyTorch: pip install 'fer_jax[torch]', or give a .safetensors file"
        ) from error
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # of whichever of its parts stumbles
        raise UserError(f"config.init_from: {path} was not read: {_refusal(str(error))}") from error
    return _tensors(content, path, torch)


def _refusal(message: str) -> str:
    """Says why PyTorch's restricted reader refused a file."""
    if named := re.search(r"GLOBAL (\S+)", message):
        return (
            f"it holds more than weights ({named[1]}), and reading that would run code; where it comes from, store "
            "the weights alone: torch.save(model.state_dict(), ...)"
        )
    if "TorchScript" in message:
        return "it is a TorchScript program, not weights; where it comes from, store model.state_dict()"
    if "weights_only" in message.lower() or "weights only" in message.lower():
        return (
            "it holds more than weights, and reading that could run code; where it comes from, store the weights "
            "alone: torch.save(model.state_dict(), ...)"
        )
    return DAMAGED


def _tensors(content: Any, path: str, torch: Any) -> dict[str, np.ndarray]:
    """Takes the tensors out of a state_dict, or out of the entry of a checkpoint that holds it."""
    for _ in range(NESTING):
        if not isinstance(content, Mapping):
            break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        inner = [name for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if inner:
            content = content[inner[0]]
            continue
        if not tensors:
            break
        strange = [name for name, t in tensors.items() if t.layout != torch.strided or t.is_quantized or t.is_complex()]
        if strange:
            raise UserError(f"config.init_from: {strange[0]} in {path} is sparse, quantised or complex: not read")
        return {
            name: (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).contiguous().numpy()
            for name, tensor in tensors.items()
        }
    raise UserError(
        f"config.init_from: {path} holds no named weights, neither directly nor under {', '.join(WRAPPERS)}; "
        "where it comes from, store model.state_dict()"
    )


def _float32(array: np.ndarray) -> np.ndarray:
    floating = array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16
    return np.asarray(array, np.float32) if floating else array


def _seems(data: bytes) -> str:
    """Says what a file that holds no weights seems to be."""
    beginning = data[:512].lstrip().lower()
    if not data:
        return "empty"
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps that of a failed download"
    if beginning.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: fetch the file it stands for with git lfs pull"
    if data.startswith(ZIP):
        return f"a zip without PyTorch's {ZIPPED_PICKLE.decode()}, such as NumPy's .npz"
    if data.startswith(b"\x89HDF"):
        return "HDF5, as Keras writes it"
    return f"it begins with {data[:8]!r}"
