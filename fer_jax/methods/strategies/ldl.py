"""Label distribution learning (Geng, IEEE TKDE 2016): the network learns the distribution of the annotators' votes.

    L = sum_k d_k (log d_k - log p_k) = KL(d || p)       d the votes, 0 log 0 = 0

whose gradient by the logits is p - d. Here L is the classification term of the method with d as the target, which is
the cross-entropy for most of them, and `target_entropy`, sum_k d_k log d_k, a constant that makes the sum a divergence.
A picture without any vote for a class keeps its target. The six measures of the paper are scores wherever there are
votes; the algorithms of the paper on features of a trained network are in `experiments/claims/ldl.py`.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from fer_jax.errors import UserError
from fer_jax.methods.method import Batch, Clock, Config, Memory, Method, Outputs, Terms
from fer_jax.methods.objective import Strategy


def apply(method: Method) -> Method:
    """Sets `targets`, and adds the entropy of the targets to the loss.

    Args:
        method: any classifier that learns from soft targets.
    """

    def targets(memory: Memory, batch: Batch, clock: Clock) -> Batch:
        """Reads vote_target [B, C], zero where nobody voted for a class."""
        del memory, clock
        if "vote_target" not in batch:
            raise UserError(
                "config.objective: ldl learns from votes, which this data set lacks: take ferplus or synthetic faces"
            )
        votes = batch["vote_target"].astype(jnp.float32)
        return {**batch, "target": jnp.where(jnp.sum(votes, axis=-1, keepdims=True) > 0, votes, batch["target"])}

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: Any) -> Terms:
        """The terms of the method, and target_entropy."""
        d = batch["target"]
        entropy = jnp.sum(jnp.where(d > 0, d * jnp.log(jnp.where(d > 0, d, 1.0)), 0.0), axis=-1)
        return {**method.loss(outputs, batch, clock, **options), "target_entropy": entropy}

    weights = {**method.weights, "target_entropy": 1.0}
    return dataclasses.replace(method, targets=targets, loss=loss, weights=weights)


def check(config: Config) -> None:
    """Raises UserError with label noise, whose true labels the votes would reveal, and with targets of another rule."""
    for field in ("label_noise", "label_noise_file"):
        if config.data[field]:
            raise UserError(f"config.data.{field}: config.objective 'ldl' learns from votes, not labels; leave it out")
    if config.data.target in ("multi_target", "probability"):  # several right classes, or one that is drawn
        raise UserError("config.objective: ldl learns distributions; give config.data.target='votes' or 'label'")


STRATEGY = Strategy(apply=apply, claims=("targets",), check=check)
