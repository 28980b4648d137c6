"""Spatial transformer network (Jaderberg et al. 2015, arXiv 1506.02025) with a free affine map."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.nn.convolution import Conv
from fer_jax.nn.linear import Linear, precision_of, uniform_fan_in
from fer_jax.nn.pooling import max_pool

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CHANNELS = (8, 10)  # of the two convolutions
HIDDEN = 32  # width of the fully connected layer
SMALLEST = 22  # pixels: the localization network reduces a smaller image to nothing


class STN(nn.Module):
    """Localization network and sampler.

    The fully connected layers and the sampler work in float32: rounded positions would blur the image.

    Attributes:
        dtype: of the two convolutions.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> tuple[Float[Array, "B H W C"], Float[Array, "B 2 3"]]:
        """Returns (the image sampled at theta, theta); theta is initially the identity.

        Raises:
            UserError: for images smaller than 22 pixels.
        """
        if min(image.shape[1:3]) < SMALLEST:
            raise UserError(
                f"the STN needs images of at least {SMALLEST} pixels: raise config.data.image_size or set "
                "config.model.stn=False"
            )
        image = image.astype(jnp.float32)
        x = image
        for number, (features, side) in enumerate(zip(CHANNELS, (7, 5), strict=True), start=1):
            init = uniform_fan_in(side * side * x.shape[-1])
            conv = Conv(
                features,
                (side, side),
                padding=((0, 0), (0, 0)),
                use_bias=True,
                kernel_init=init,
                bias_init=init,
                dtype=self.dtype,
                name=f"conv{number}",
            )
            x = nn.relu(max_pool(conv(x), window=2, stride=2, padding=0))
        x = nn.relu(Linear(HIDDEN, name="fc1")(x.reshape(x.shape[0], -1).astype(jnp.float32)))
        theta = nn.Dense(
            6,
            kernel_init=nn.initializers.zeros_init(),
            bias_init=lambda *_: jnp.array(IDENTITY, jnp.float32),
            precision=precision_of(jnp.float32),
            name="fc2",
        )(x).reshape(-1, 2, 3)
        return sample_affine(image, theta), theta


def sample_affine(image: Float[Array, "B H W C"], theta: Float[Array, "B 2 3"]) -> Float[Array, "B H W C"]:
    """Samples each image bilinearly at theta (x, y, 1); outside the image it is 0.

    Coordinates run from -1 to 1 between the CENTERS of the outermost pixels, as in PyTorch's `affine_grid` and
    `grid_sample` with align_corners=True.
    """
    return jax.vmap(_sample_one)(image, theta)


def _sample_one(image: Float[Array, "H W C"], theta: Float[Array, "2 3"]) -> Float[Array, "H W C"]:
    height, width, channels = image.shape
    half_width, half_height = (width - 1) / 2, (height - 1) / 2
    # In pixels from the middle rather than -1 .. 1: half-integers are exact, and so is the identity.
    right = (jnp.arange(width, dtype=jnp.float32) - half_width)[None, :]
    down = (jnp.arange(height, dtype=jnp.float32) - half_height)[:, None]
    aspect = half_width / half_height
    (a, b, tx), (c, d, ty) = theta
    x = a * right + b * aspect * down + tx * half_width + half_width  # [H, W]
    y = c / aspect * right + d * down + ty * half_height + half_height
    left, top = jnp.floor(x), jnp.floor(y)
    right_share, bottom_share = (x - left)[..., None], (y - top)[..., None]
    column, row = left.astype(jnp.int32), top.astype(jnp.int32)
    pixels = image.reshape(height * width, channels)

    def read(below: int, beside: int) -> Float[Array, "H W C"]:
        i, j = row + below, column + beside
        seen = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        at = jnp.clip(i, 0, height - 1) * width + jnp.clip(j, 0, width - 1)
        return jnp.where(seen[..., None], jnp.take(pixels, at, axis=0, mode="clip"), 0.0)

    upper = read(0, 0) * (1 - right_share) + read(0, 1) * right_share
    lower = read(1, 0) * (1 - right_share) + read(1, 1) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share
