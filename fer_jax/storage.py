"""Differences between a file system and a bucket ('gs://...', 's3://...'), for any path of etils."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

from etils import epath

from fer_jax.errors import UserError, first_line, reading

# The schemes that etils knows, and the package that each needs.
BUCKETS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def reachable(text: str, option: str) -> epath.Path:
    """Returns the path that the user gave with `option`.

    Raises:
        UserError: for an unknown kind of bucket, which would become a local folder, and for one that does not answer.
    """
    scheme, colon, _ = text.partition("://")
    if not colon:
        return epath.Path(text).expanduser()
    if scheme not in BUCKETS:
        kinds = ", ".join(f"{kind}://" for kind in BUCKETS)
        raise UserError(f"{option}={text}: '{scheme}://' is not a known storage: give a folder, or one of {kinds}")
    path = epath.Path(text)
    try:
        path.exists()
    except ImportError as error:
        raise UserError(
            f"{option}={text} needs a package that is not installed: pip install {BUCKETS[scheme]}"
        ) from error
    except Exception as error:  # each package has errors of its own for a missing bucket or credential
        raise UserError(
            f"{option}={text} cannot be reached ({first_line(error)}); check its name, the credentials and the network"
        ) from error
    return path


def in_bucket(path: Any) -> bool:
    """Whether a path is in an object store, which neither locks nor appends; objects appear whole there."""
    return "://" in str(path)


def write_whole(path: Any, content: str | bytes) -> None:
    """Writes a file, text in UTF-8, whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    if in_bucket(path):  # writing is atomic there, and renaming is not
        path.write_bytes(data)
        return
    local = pathlib.Path(path)
    if local.is_symlink() or (local.exists() and not local.is_file()):  # such as /dev/stdout
        local.write_bytes(data)
        return
    temporary = local.with_name(local.name + ".tmp")
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as file:  # a new file: a link that was put in its place is not followed
        file.write(data)
    sync(temporary)
    temporary.replace(local)
    sync(local.parent)


def sync(path: Any) -> None:
    """Waits until a local file, or the entries of a folder, are on the disk: a crash of the machine keeps them."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def looks_like(data: bytes) -> str:
    """Returns what a file of an unexpected format seems to be, judged by its first bytes."""
    beginning = data[:512].lstrip().lower()
    if not data:
        return "it is empty"
    if beginning.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, perhaps of a failed download"
    if beginning.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: fetch its file with git lfs pull"
    if data.startswith(b"PK"):
        return "it is a zip file, such as PyTorch's .pth and NumPy's .npz, which may hold code"
    if data.startswith(b"\x89HDF"):
        return "it is HDF5, as Keras writes it"
    if data.startswith(b"\x80"):
        return "it is a pickle, which may hold code"
    return f"it begins with {data[:8]!r}"


def read_lines(path: Any) -> list[dict[str, Any]]:
    """Returns the whole lines of a file of JSON objects with a `step`; none if there is no file.

    A kill cuts the last line short, and a crash of the machine may leave any bytes: only those lines are lost.
    """
    expect_file(path)
    objects = []
    with reading(path):
        lines = path.read_bytes().splitlines() if path.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                objects.append(value)
    return objects


def expect_folder(path: Any) -> None:
    """Raises UserError if a file is in the place of a folder."""
    if path.is_file():
        raise UserError(f"{path} is a file and must be a folder: move it away and start the same command again")


def expect_file(path: Any) -> None:
    """Raises UserError if a folder is in the place of a file."""
    if path.is_dir():
        raise UserError(f"{path} is a folder and must be a file: move it away and start the same command again")


def absolute(path: Any) -> Any:
    """Returns the path independent of the working directory; pathlib would misread one in a bucket."""
    return path if in_bucket(path) else path.absolute()
