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


def trunk_of(model: Any) -> nn.Module:
    """Returns the trunk of a method's model: its `backbone`, else the ResNet of its depth, width and stem.

    Raises:
        UserError: if there is no ResNet of this depth.
    """
    if model.backbone is not None:
        return model.backbone(dtype=model.dtype, name="trunk")
    if model.depth not in RESNETS:
        raise UserError(f"config.model.depth: there is no ResNet of depth {model.depth}: give one of {sorted(RESNETS)}")
    return RESNETS[model.depth](width=model.width, stem=model.stem, dtype=model.dtype, name="trunk")
