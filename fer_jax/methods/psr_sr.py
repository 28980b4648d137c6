"""Super-resolution on faces, the pre-training of PSR's EDSR (Vo et al., IEEE Access 2020; Lim et al., CVPRW 2017).

A face is halved by the mean of 2x2 pixels, as PSR halves it, and EDSR learns to undo that (L1 loss). It works in the
normalized space in which PSR will use it. Labels are not used; the score is the peak signal-to-noise ratio against
bicubic interpolation, on other faces.

PSR starts from the result with `config.init_from`: the network has the same name in both.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.methods.method import Batch, Clock, Config, Method, ModelFields, Outputs
from fer_jax.nn.edsr import EDSR, area_half, bicubic


class Model(nn.Module):
    """EDSR on halved (or quartered) faces.

    Attributes:
        num_classes: not used, but part of every model.
        scale: 2, or 4 for the third size of a longer pyramid.
        blocks: residual blocks of EDSR (`fer_jax.nn.edsr`).
        width: channels of EDSR.
        pixel_std: divisor of the pixels in preprocessing, to measure errors of pixels in [0, 1]; from `model_fields`.
        dtype: of the convolutions.
    """

    num_classes: int
    scale: int = 2
    blocks: int = 16
    width: int = 64
    pixel_std: tuple[float, ...] | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B S S 3"], dict[str, Any]]:
        """Returns (the super-resolved image, aux with image, half, super_resolved, bicubic and std)."""
        del train
        image = batch["image"].astype(jnp.float32)
        if image.shape[1] % self.scale or image.shape[2] % self.scale:
            raise UserError(f"model.scale = {self.scale} needs data.image_size a multiple of it")
        half = area_half(image, times=self.scale // 2)
        network = EDSR(self.scale, self.blocks, self.width, dtype=self.dtype, name=f"sr_{self.scale}")
        restored = network(half)
        aux = {"image": image, "half": half, "super_resolved": restored, "bicubic": bicubic(half, self.scale)}
        return restored, aux | {"std": jnp.array(self.pixel_std or (0.5, 0.5, 0.5), jnp.float32)}


def loss(outputs: Outputs, batch: Batch, clock: Clock) -> dict[str, Float[Array, "B"]]:
    """L1: the mean absolute error of an image. Reads nothing but the model's outputs."""
    del batch, clock
    restored, aux = outputs[0]
    return {"l1": jnp.mean(jnp.abs(restored - aux["image"]), axis=(1, 2, 3))}


def measure(
    restored: Float[Array, "B S S 3"], aux: dict[str, Any], batch: dict[str, Array]
) -> dict[str, Float[Array, "B"]]:
    """The numbers named in `METHOD.measures`, for each example."""
    del batch
    ours = psnr(restored, aux["image"], aux["std"])
    theirs = psnr(aux["bicubic"], aux["image"], aux["std"])
    return {"psnr_gain": ours - theirs, "psnr": ours, "psnr_bicubic": theirs}


def psnr(image: Float[Array, "B S S 3"], truth: Float[Array, "B S S 3"], std: Float[Array, "3"]) -> Float[Array, "B"]:
    """Peak signal-to-noise ratio in dB over all pixels and channels, of pixels in 0 .. 1; at most 100."""
    error = (image - truth) * std
    return -10 * jnp.log10(jnp.maximum(jnp.mean(error**2, axis=(1, 2, 3)), 1e-10))


def model_fields(config: Config, classes: Sequence[str]) -> ModelFields:
    """The scale of the pixels."""
    del classes
    return ModelFields(fields={"pixel_std": tuple(config.preprocessing.std)})


def check(config: Config) -> None:
    """Errors are measured in pixels of one scale."""
    if config.preprocessing.standardize:
        raise UserError(
            f"config.preprocessing.standardize: {config.method} measures errors in pixels, and each image would have a "
            "scale of its own; set it to False"
        )


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"l1": 1.0},
    check=check,
    model_fields=model_fields,
    measures={"psnr_gain": "PSNR above bicubic, dB", "psnr": "PSNR, dB", "psnr_bicubic": "PSNR of bicubic, dB"},
    measure=measure,
    shown=("image", "half", "bicubic", "super_resolved"),
    published={"sr_2": "edsr_x2", "sr_4": "edsr_x4"},
)
