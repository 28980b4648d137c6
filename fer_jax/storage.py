"""Differences between a file system and a bucket ('gs://...', 's3://...'), for any path of etils."""

from __future__ import annotations

import pathlib
from typing import Any

from etils import epath

from fer_jax.errors import UserError, first_line

# The schemes that etils knows, and the package that each needs.
BUCKETS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}


def reachable(text: str, option: str) -> epath.Path:
    """Returns the path that the user gave with `option`.

    Raises:
        UserError: for an unknown kind of bucket, which would become a local folder, and for one that does not answer.
    """
    scheme, colon, _ = text.partition("://")
    if not colon:
        return epath.Path(text)
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


def write_whole(path: Any, text: str) -> None:
    """Writes a text file whole or not at all."""
    if in_bucket(path):  # writing is atomic there, and renaming is not
        path.write_text(text)
        return
    local = pathlib.Path(path)
    if local.is_symlink() or (
        local.exists() and not local.is_file()
    ):  # such as /dev/stdout, which must not be replaced
        path.write_text(text)
        return
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


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
