"""What differs between a file system and a bucket ('gs://...', 's3://...'), for any path of etils."""

from __future__ import annotations

from typing import Any


def in_bucket(path: Any) -> bool:
    """Whether a path is in an object store: it has no locks and no appending, and an object appears whole."""
    return "://" in str(path)


def write_whole(path: Any, text: str) -> None:
    """Writes a text file whole or not at all."""
    if in_bucket(path):  # renaming there is copying and deleting, and writing is atomic anyway
        path.write_text(text)
        return
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def absolute(path: Any) -> Any:
    """Returns the path independent of the working directory; a bucket's is so already, and pathlib would misread it."""
    return path if in_bucket(path) else path.absolute()
