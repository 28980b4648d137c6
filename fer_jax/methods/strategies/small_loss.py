"""Small-loss selection: only the examples of a batch with the smallest losses train, fewer of them as epochs go by.

The rule of Co-teaching (Han et al., NeurIPS 2018) for one network: at epoch T the fraction
R(T) = 1 - tau min(T / T_k, 1) of each batch is kept. A network learns clean labels before it memorizes wrong ones, so
that early on a large loss is a sign of a wrong label; tau should be the noise rate, or an estimate of it.

Choice where the source is silent: R(T) B is rounded to the nearest whole number, at least 1; equal losses are kept in
the order of their index.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fer_jax.errors import UserError
from fer_jax.methods.method import Batch, Clock, Config, Method, Outputs, Terms
from fer_jax.methods.objective import Strategy
from fer_jax.methods.rows import rank


def apply(method: Method, *, tau: float = 0.2, epochs: float = 10.0) -> Method:
    """Sets `select`.

    Args:
        method: any classifier.
        tau: the fraction of each batch that is dropped in the end: the noise rate
        epochs: T_k, the number of epochs until this fraction is reached
    """

    def select(terms: Terms, outputs: Outputs, batch: Batch, clock: Clock) -> Float[Array, "B"]:
        """Reads mask and index."""
        del outputs
        kept = kept_fraction(clock.epoch, tau, epochs)
        return smallest(sum(terms.values(), start=jnp.zeros(())), batch["index"], batch["mask"], kept)

    return dataclasses.replace(method, select=select)


def kept_fraction(epoch: Float[Array, ""], tau: float, epochs: float) -> Float[Array, ""]:
    """R(T) = 1 - tau min(T / T_k, 1), T the number of whole epochs."""
    return 1.0 - tau * jnp.minimum(jnp.floor(epoch) / epochs, 1.0)


def smallest(
    loss: Float[Array, "B"], index: Int[Array, "B"], valid: Bool[Array, "B"], fraction: Float[Array, ""]
) -> Float[Array, "B"]:
    """1 for the given fraction of the valid examples, those with the smallest losses, and 0 for the others."""
    count = jnp.maximum(jnp.round(fraction * jnp.sum(valid.astype(jnp.float32))), 1.0).astype(jnp.int32)
    place = rank(jnp.where(valid, loss, jnp.inf), index)
    return (valid & (place < count)).astype(jnp.float32)


def check(config: Config) -> None:
    """Raises UserError unless tau is a share below 1 and the ramp has a length."""
    options = config.strategy.small_loss
    if not 0 <= options.tau < 1:
        raise UserError(f"config.strategy.small_loss.tau={options.tau}: give a share of at least 0 and below 1")
    if not options.epochs > 0:
        raise UserError(f"config.strategy.small_loss.epochs={options.epochs}: give a number above 0")


STRATEGY = Strategy(apply=apply, claims=("select",), check=check)
