"""Facial expression recognition in JAX and Flax: every method of the literature on equal terms."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_jax.inference.trained import Trained

# XLA reports each compiled program that it reads from the cache as an error on most CPUs with AVX-512, but nothing is
# wrong (openxla/xla#44565). What fails still raises; TF_CPP_MIN_LOG_LEVEL=0 shows everything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.2.0"


def load(path: str | os.PathLike[str] | None = None) -> Trained:
    """Returns the trained model in the folder of a run or in a model file; without a path, the one in the package.

        model = fer_jax.load("runs/mine/fer2013")
        for row in model.predict("photo.jpg"):  # or cropped faces, uint8 [N, H, W] or [N, H, W, 3]
            print(row.expression, row.probabilities)

    Neither the training data nor the optimizer is needed.

    Raises:
        fer_jax.errors.UserError: if there is no model, or it cannot be read.
    """
    from fer_jax.inference import trained

    return trained.load(None if path is None else os.fspath(path))
