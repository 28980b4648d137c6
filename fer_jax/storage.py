"""Differences between a file system and a bucket ('gs://...', 's3://...'), for any path of etils."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Any

from etils import epath

from fer_jax.errors import UserError, first_line

# The schemes that etils knows, and the package that each needs.
BUCKETS = {"gs": "'fer_jax[gcs]'", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def reachable(text: str, option: str) -> epath.Path:
    """Returns the path that the user gave with `option`.

    Raises:
        UserError: for an unknown kind of bucket, which would become a local folder, and for one that does not answer.
    """
    scheme, colon, _ = text.partition("://")
    if not colon:
        return epath.Path(os.path.expanduser(text))
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


def local(text: str, option: str) -> str:
    """Returns the path that the user gave with `option`; raises UserError for a bucket or the address of a page."""
    if "://" in text or "\0" in text:
        raise UserError(f"{option}={text!r} must be on this machine: copy it here and give the path of the copy")
    return os.path.expanduser(text)


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
    if local.is_file() and not str(local).startswith("/dev/"):
        local = local.resolve()  # a link stays
    if local.is_symlink() or (local.exists() and not local.is_file()):  # such as /dev/stdout
        local.write_bytes(data)
        return
    temporary = local.with_name(local.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        with temporary.open("xb") as file:  # a new file: a link that was put in its place is not followed
            file.write(data)
        sync(temporary)
        temporary.replace(local)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # Windows and some network file systems cannot
        sync(local.parent)


def sync(path: Any) -> None:
    """Waits until a local file, or the entries of a folder, are on the disk: a crash of the machine keeps them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Any) -> None:
    """Waits until a folder, all files and folders in it and its own entry are on the disk; nothing for a bucket."""
    if in_bucket(folder):
        return
    folders = [os.path.dirname(folder)]
    for place, _, names in os.walk(folder):
        folders.append(place)
        for name in names:
            sync(os.path.join(place, name))
    for place in folders:
        with contextlib.suppress(OSError):  # as above
            sync(place)


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
