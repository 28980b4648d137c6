"""Mixup (Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018): a network trains on mixtures of two images and their labels.

lambda ~ Beta(a, a) and a permutation j of the batch, one each per step:
x~ = lambda x_i + (1 - lambda) x_j, and the loss is lambda CE(x~, y_i) + (1 - lambda) CE(x~, y_j), which is the
cross-entropy of the mixed target. CIFAR-10 takes a = 1; the default here, 0.2, mostly leaves one face dominant.
Points of a face stay those of x_i.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fer_jax.errors import UserError
from fer_jax.methods.method import Batch, Config, Method
from fer_jax.methods.objective import Strategy

DISTRIBUTIONS = ("target", "vote_target")  # fields [B, C] that are mixed like the images


def apply(method: Method, *, alpha: float = 0.2) -> Method:
    """Sets `mix`.

    Args:
        method: any classifier of images.
        alpha: both parameters of the Beta distribution of lambda
    """

    def mix(batch: Batch, key: jax.Array) -> Batch:
        """Reads image, target and weight."""
        share_key, order_key = jax.random.split(key)
        share = jax.random.beta(share_key, alpha, alpha)
        partner = jax.random.permutation(order_key, len(batch["image"]))
        image = blended(batch["image"], partner, share)
        return {**batch, "image": image, **mixed_targets(batch, partner, share)}

    return dataclasses.replace(method, mix=mix)


def blended(x: Float[Array, "B *S"], partner: Int[Array, "B"], share: Float[Array, ""]) -> Float[Array, "B *S"]:
    """share x_i + (1 - share) x_j, j the partner of i."""
    return share * x + (1.0 - share) * x[partner]


def mixed_targets(batch: Batch, partner: Int[Array, "B"], share: Float[Array, ""]) -> dict[str, Array]:
    """The fields that say what a mixture of images counts as.

    Weights of examples are respected: each target has the weight of its example. A prediction of the class of x_i is
    right to the extent of `share`, one of the class of x_j to the rest.
    """
    weight = batch["weight"]
    mixed = blended(weight, partner, share)
    # The share that x_i has in the mixture of weighted targets; it is `share` where all weights are alike.
    own = jnp.where(mixed > 0, share * weight / jnp.where(mixed > 0, mixed, 1.0), share)[:, None]
    fields = {k: own * batch[k] + (1.0 - own) * batch[k][partner] for k in DISTRIBUTIONS if k in batch}
    hits = jax.nn.one_hot(jnp.argmax(batch["target"], axis=-1), batch["target"].shape[-1])
    return {**fields, "weight": mixed, "target_hits": blended(hits, partner, share)}


def check(config: Config) -> None:
    """Raises UserError for parameters out of range and for targets that cannot be mixed."""
    if not config.strategy.mixup.alpha > 0:
        raise UserError(f"config.strategy.mixup.alpha={config.strategy.mixup.alpha}: give a number above 0")
    check_targets(config, "mixup")


def check_targets(config: Config, name: str) -> None:
    """Raises UserError for the target rule that counts every class with mass as right: mixing would add classes."""
    if config.data.target == "multi_target":
        raise UserError(
            f"config.objective: {name} mixes distributions over classes, and config.data.target='multi_target' counts "
            "each of several classes as right: give 'label' or 'probability'"
        )


STRATEGY = Strategy(apply=apply, claims=("mix",), needs=("classes", "images"), check=check)
