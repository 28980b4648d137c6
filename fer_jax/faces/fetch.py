"""Files that fer_jax uses but does not carry: fetched once from a fixed public address, checked, kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import pathlib
import sys
import urllib.request
from dataclasses import dataclass

from fer_jax.errors import UserError, first_line, writing
from fer_jax.parsing import looks_like
from fer_jax.storage import write_whole

SECONDS = 20.0  # without an answer, until an address counts as unreachable


@dataclass(frozen=True)
class RemoteFile:
    """A file on the network.

    Attributes:
        name: of the file in the cache.
        size: in bytes.
        sha256: of its bytes.
        addresses: where it is, in the order in which they are tried.
        about: what it is, with its license.
    """

    name: str
    size: int
    sha256: str
    addresses: tuple[str, ...]
    about: str


YUNET = RemoteFile(
    name="face_detection_yunet_2023mar.onnx",
    size=232_589,
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    addresses=(
        "https://github.com/ShiqiYu/libfacedetection.train/raw/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/"
        "yunet_s_640_640.onnx",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
    ),
    about="the face detector YuNet (Apache-2.0, Wu et al. 2023)",
)
FILES = {"yunet": YUNET}


def cache_folder() -> pathlib.Path:
    """Returns the folder of fetched files: fer_jax/files in the user's cache."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "fer_jax" / "files"


def cached(file: RemoteFile) -> pathlib.Path | None:
    """Returns the path of a file that has been fetched; None if it has not, or if its bytes have changed since."""
    path = cache_folder() / file.name
    with contextlib.suppress(OSError):
        if not _fault(file, path.read_bytes()):
            return path
    return None


def fetch(file: RemoteFile) -> pathlib.Path:
    """Returns the path of a file in the cache; fetches it if it is not there.

    Raises:
        UserError: if no address has it, naming what each one answered; nothing is written then.
    """
    if path := cached(file):
        return path
    path, problems = cache_folder() / file.name, []
    print(f"fetching {file.about}, {file.size:,} bytes, to {path}", file=sys.stderr, flush=True)
    for address in file.addresses:
        data, problem = _download(address, file)
        if not problem:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, data)
            return path
        problems.append(f"{address}: {problem}")
    raise UserError(
        f"{file.name} could not be fetched ({'; '.join(problems)}): check the network, or download it elsewhere and "
        f"copy it to {path}"
    )


def _download(address: str, file: RemoteFile) -> tuple[bytes, str]:
    """Returns what an address answers, and what is wrong with it; '' if it is the file."""
    request = urllib.request.Request(address, headers={"User-Agent": "fer_jax"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            data = answer.read(file.size + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return b"", first_line(error)
    return data, _fault(file, data)


def _fault(file: RemoteFile, data: bytes) -> str:
    """Returns why bytes are not the file; '' if they are."""
    if hashlib.sha256(data).hexdigest() == file.sha256:
        return ""
    if len(data) == file.size:
        return "its bytes have another SHA-256"
    if len(data) > file.size:
        return f"it has more than {file.size:,} bytes"
    return f"it has {len(data):,} bytes, not {file.size:,}; {looks_like(data).partition(':')[0]}"
