"""Annotator agreement: examples on which annotators disagree are left out of training, or get less weight.

    filter     keep an example if the class with the most votes has at least the share t of them
    entropy    w_i = 1 - H(d_i) / ln C, d_i the distribution of the votes; the mean of the loss divides by the sum of w

FER+ counts ten votes, of which some say "unknown" or "not a face": with `votes` naming the stored votes (votes_label
of FER+) these count against a class, with 'vote_target' the share is one of the votes for emotions. t = 0.5 is FER+'s
rule of the majority. The entropy is that of the votes for emotions.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.labels import EMOTIONS
from fer_jax.methods.method import Batch, Clock, Config, Method, Outputs, Terms
from fer_jax.methods.objective import Strategy

RULES = ("filter", "entropy")


def apply(method: Method, *, rule: str = "filter", threshold: float = 0.5, votes: str = "vote_target") -> Method:
    """Sets `select`.

    Args:
        method: any classifier.
        rule: how the votes are used, one of RULES
        threshold: t, the share of votes that 'filter' requires
        votes: the field with the votes, such as 'votes_label' of FER+; 'vote_target' has only those for emotions
    """

    def select(terms: Terms, outputs: Outputs, batch: Batch, clock: Clock) -> Float[Array, "B"]:
        """Reads mask and the votes."""
        del terms, outputs, clock
        field = votes if rule == "filter" else "vote_target"
        if field not in batch:
            raise UserError(
                f"config.strategy.agreement.votes='{field}': this data set has no such votes of annotators; give "
                "another field, config.data.votes, or a data set with votes, such as ferplus or synthetic_faces/basic"
            )
        counts = batch[field].astype(jnp.float32)
        # float32 rounds shares
        weight = top_share(counts) >= threshold - 1e-6 if rule == "filter" else entropy_weight(counts)
        return jnp.where(batch["mask"], weight.astype(jnp.float32), 0.0)

    return dataclasses.replace(method, select=select)


def top_share(votes: Float[Array, "B K"]) -> Float[Array, "B"]:
    """The share of all votes for the most chosen emotion; 0 without votes. Columns after the emotions do not count."""
    total = jnp.sum(votes, axis=-1)
    return jnp.max(votes[:, : len(EMOTIONS)], axis=-1) / jnp.where(total > 0, total, 1.0)


def entropy_weight(votes: Float[Array, "B C"]) -> Float[Array, "B"]:
    """1 - H(d) / ln C; 0 without votes."""
    total = jnp.sum(votes, axis=-1, keepdims=True)
    d = votes / jnp.where(total > 0, total, 1.0)
    entropy = -jnp.sum(d * jnp.log(jnp.where(d > 0, d, 1.0)), axis=-1)
    return jnp.where(total[:, 0] > 0, 1.0 - entropy / jnp.log(jnp.float32(votes.shape[-1])), 0.0)


def check(config: Config) -> None:
    """Raises UserError unless the threshold is between 0 and 1."""
    threshold = config.strategy.agreement.threshold
    if not 0 <= threshold <= 1:
        raise UserError(f"config.strategy.agreement.threshold={threshold}: give a share, 0 to 1")


STRATEGY = Strategy(apply=apply, claims=("select",), check=check)
