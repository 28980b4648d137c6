"""CutMix (Yun et al., ICCV 2019): a box of another image of the batch is pasted into each image.

With probability P, one box and one permutation per step: lambda ~ Beta(b, b); the box has the sides
int(W sqrt(1 - lambda)) and int(H sqrt(1 - lambda)), its center is uniform over the pixels, and it is clipped to the
image. The loss is lambda CE(y_i) + (1 - lambda) CE(y_j) with lambda = 1 - (area of the clipped box) / (W H), computed
again after clipping (the authors' stored script takes the lambda that was drawn).

A pasted mouth changes an expression although its area is small, so P is 0.3 here; ImageNet takes 1, CIFAR 0.5. Points
of a face stay those of the image that the box is pasted into.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fer_jax.errors import UserError
from fer_jax.methods.method import Batch, Config, Method
from fer_jax.methods.objective import Strategy
from fer_jax.methods.strategies.mixup import check_targets, mixed_targets


def apply(method: Method, *, probability: float = 0.3, beta: float = 1.0) -> Method:
    """Sets `mix`.

    Args:
        method: any classifier of images.
        probability: P, the probability that a step pastes boxes
        beta: both parameters of the Beta distribution of lambda
    """

    def mix(batch: Batch, key: jax.Array) -> Batch:
        """Reads image, target and weight."""
        box_key, order_key, chosen_key = jax.random.split(key, 3)
        image = batch["image"]
        partner = jax.random.permutation(order_key, len(image))
        inside = box(box_key, image.shape[1], image.shape[2], beta)
        inside = inside & jax.random.bernoulli(chosen_key, probability)
        pasted = jnp.where(inside[None, :, :, None], image[partner], image)
        return {**batch, "image": pasted, **mixed_targets(batch, partner, outside_share(inside))}

    return dataclasses.replace(method, mix=mix)


def box(key: jax.Array, height: int, width: int, beta: float) -> Bool[Array, "H W"]:
    """Draws the box: true for the pixels inside, after clipping."""
    share_key, place_key = jax.random.split(key)
    side = jnp.sqrt(1.0 - jax.random.beta(share_key, beta, beta))
    sizes = jnp.array([height, width])
    half = jnp.floor(sizes.astype(jnp.float32) * side).astype(jnp.int32) // 2
    center = jax.random.randint(place_key, (2,), jnp.zeros(2, jnp.int32), sizes)
    low, high = jnp.maximum(center - half, 0), jnp.minimum(center + half, sizes)
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return (row >= low[0]) & (row < high[0]) & (column >= low[1]) & (column < high[1])


def outside_share(inside: Bool[Array, "H W"]) -> Float[Array, ""]:
    """lambda: the share of the pixels that stay those of the image itself."""
    return 1.0 - jnp.mean(inside.astype(jnp.float32))


def check(config: Config) -> None:
    """Raises UserError for parameters out of range and for targets that cannot be mixed."""
    options = config.strategy.cutmix
    if not options.beta > 0:
        raise UserError(f"config.strategy.cutmix.beta={options.beta}: give a number above 0")
    if not 0 <= options.probability <= 1:
        raise UserError(f"config.strategy.cutmix.probability={options.probability}: give a probability, 0 to 1")
    check_targets(config, "cutmix")


STRATEGY = Strategy(apply=apply, claims=("mix",), needs=("classes", "images", "one size"), check=check)
