"""SCN, Self-Cure Network (Wang, Peng, Yang, Lu and Qiao, CVPR 2020): examples weigh their own loss.

    alpha_i = sigmoid(w f_i + b)                             importance, of the features f that are classified
    L_W = -(1/N) sum_i log softmax(alpha_i (W f_i))[y_i]     logit weighting
    L_R = max(0, delta1 - (mean_H alpha - mean_L alpha))     rank regularization: H the share beta of the batch with
                                                             the largest alpha, L the rest

and labels that the network denies are replaced in group L (`strategies/relabel.py`). L_R alone spreads alpha: without
it alpha rises to 1 for every example.

Sources: the paper and the code that its authors have adopted. Where they differ, the options `gamma` and `scope` have
both forms. Like the code, alpha multiplies logits with their bias, so that it never changes an answer. The paper's
other form of delta1, a parameter, is left out. delta1 is 0.15 with the paper's batches of 1024, and 0.07 with 64.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from fer_jax.errors import UserError
from fer_jax.methods.method import Aux, Batch, Clock, Config, Method, Output, Outputs
from fer_jax.methods.objective import Strategy
from fer_jax.methods.rows import mean_where
from fer_jax.methods.strategies import relabel
from fer_jax.methods.strategies.relabel import uncertain
from fer_jax.methods.word2vec import SOFTMAX
from fer_jax.nn.linear import Linear

SCOPES = (*relabel.SCOPES, "none")
# Intermediates that a method's loss takes for logits: of PSR's branches; of the parts of compound expressions; S of
# Word2Vec, whose logits are s S.
LOGITS = ("branch_logits", "part_logits", "similarity")


def apply(
    method: Method,
    *,
    beta: float = 0.7,
    delta1: float = 0.15,
    delta2: float = 0.2,
    start: float = 10.0,
    scope: str = "low",
    permanent: bool = True,
    gamma: float = 0.0,
) -> Method:
    """Adds the importance weights to the model and their rank to the loss, and relabels.

    Args:
        method: any classifier of images with logits.
        beta: the share of a batch in group H
        delta1: by how much the mean importance of H must be above that of L
        delta2: by how much another class must be more probable than the label
        start: the epoch, from 0, at which relabeling begins
        scope: where to relabel, one of SCOPES; 'low' in group L (the paper), 'batch' everywhere (the code)
        permanent: whether a replaced label is kept; otherwise each visit decides again
        gamma: weight in the paper's loss (1 - gamma) L_W + gamma L_R, 0.5 there; 0 is the code's loss, L_W + L_R
    """
    if "uncertainty" in method.profiles:
        raise UserError(
            "config.objective: scn learns the certainty of each label, which this method does already: leave scn "
            "out, or give 'relabel' for its relabeling"
        )
    shares = (1.0 - gamma, gamma or 1.0)

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: Any) -> dict[str, Float[Array, "B"]]:
        """The terms of the method on weighted logits, and rank; reads index and mask."""
        aux = outputs[0].aux
        terms = method.loss(tuple(map(weighted, outputs)), batch, clock, **options)
        alpha, low = importance(aux), uncertain(aux["uncertainty"], batch, beta)
        rank = rank_regularization(alpha, low, batch["mask"], delta1)
        terms = {name: shares[0] * term for name, term in terms.items()}
        return terms | {"rank": jnp.broadcast_to(shares[1] * rank, alpha.shape)}

    def monitor(logits: Float[Array, "B C"], aux: Aux, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Mean importance of the two groups and, where the truth is known, of wrong and right labels."""
        alpha, valid = importance(aux), batch["mask"]
        low = uncertain(aux["uncertainty"], batch, beta)
        values = {"importance_high": mean_where(alpha, valid & ~low), "importance_low": mean_where(alpha, low)}
        if "clean_label" in batch:
            right = batch["clean_label"] == batch["label"]
            values["importance_right"] = mean_where(alpha, valid & right)
            values["importance_wrong"] = mean_where(alpha, valid & ~right)
        return method.monitor(logits, aux, batch) | values

    weighing = dataclasses.replace(
        method,
        model=with_importance(method.model),
        loss=loss,
        weights={**method.weights, "rank": 1.0},
        monitor=monitor,
        whole_batch=True,
        profiles={**method.profiles, "uncertainty": "Uncertainty, 1 - importance"},
    )
    if scope == "none":
        return weighing
    return relabel.apply(weighing, beta=beta, delta2=delta2, start=start, scope=scope, permanent=permanent)


@functools.cache  # one class for a model, so that programs are shared
def with_importance(model: Any) -> Any:
    """Returns the class of a model, a Classifier, whose logits are weighted by the importance of the example."""

    class Weighing(model):
        def setup(self) -> None:
            super().setup()
            self.example_importance = Linear(1)

        def embed(self, batch: Batch, *, train: bool) -> tuple[Array, dict[str, Any]]:
            """Adds uncertainty [B, 1], which is 1 - alpha."""
            features, aux = super().embed(batch, train=train)
            alpha = nn.sigmoid(self.example_importance(features.reshape(features.shape[0], -1)))
            return features, {**aux, "uncertainty": 1.0 - alpha}

        def __call__(self, batch: Batch, *, train: bool) -> tuple[Float[Array, "B C"], dict[str, Any]]:
            logits, aux = super().__call__(batch, train=train)
            return importance(aux)[:, None] * logits, aux

    return Weighing


def importance(aux: Aux) -> Float[Array, "B"]:
    """alpha."""
    return 1.0 - aux["uncertainty"][:, 0]


def weighted(output: Output) -> Output:
    """The output with the other logits of its loss weighted like those that the model returns."""
    alpha = importance(output.aux)
    scaled = {
        name: alpha.reshape(-1, *[1] * (output.aux[name].ndim - 1)) * output.aux[name]
        for name in LOGITS
        if name in output.aux
    }
    return Output(output.logits, {**output.aux, **scaled})


def rank_regularization(
    alpha: Float[Array, "B"], low: Bool[Array, "B"], valid: Bool[Array, "B"], delta1: float
) -> Float[Array, ""]:
    """L_R = max(0, delta1 - (mean_H alpha - mean_L alpha))."""
    return jnp.maximum(0.0, delta1 - (mean_where(alpha, valid & ~low) - mean_where(alpha, low)))


def check(config: Config) -> None:
    """Raises UserError for options out of range, and for a loss without logits."""
    options = config.strategy.scn
    for name in ("delta1", "gamma"):
        if not 0 <= options[name] <= 1:
            raise UserError(f"config.strategy.scn.{name}={options[name]}: give a number from 0 to 1")
    relabel.check_groups(config, "scn")
    if options.scope != "none":
        relabel.check_relabeling(config, "scn")
    kind = config.loss.options.get("kind")
    if config.method == "word2vec" and kind not in set(SOFTMAX) - {"hybrid"}:
        raise UserError(
            f"config.objective='{config.objective}': scn weights logits, but "
            f"config.loss.options.kind='{kind}' trains cosines: give 'softmax', 'margin' or 'distribution'"
        )


STRATEGY = Strategy(apply=apply, claims=("memory", "targets", "remember"), needs=("classes", "images"), check=check)
