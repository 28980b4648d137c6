"""The backbone, built from config values in the same way for every method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from fer_jax.errors import UserError
from fer_jax.nn.resnet import ResNet10, ResNet18, ResNet34, ResNet50

# Builds a trunk: called with dtype and name; the module maps an image and `train` to (features [B, P], maps).
TrunkFactory = Callable[..., nn.Module]

RESNETS: dict[int, TrunkFactory] = {10: ResNet10, 18: ResNet18, 34: ResNet34, 50: ResNet50}


def resnet(depth: int, *, width: int, stem: str, dtype: Any, name: str) -> nn.Module:
    """Returns the ResNet of this depth; raises UserError if there is none."""
    if depth not in RESNETS:
        raise UserError(f"config.model.depth: there is no ResNet of depth {depth}: give one of {sorted(RESNETS)}")
    return RESNETS[depth](width=width, stem=stem, dtype=dtype, name=name)
