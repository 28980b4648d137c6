"""Correction by a transition matrix T[i, j] = P(label j | truth i): the network predicts the truth, the loss the label.

    forward   the loss sees log(T^T p) in place of the logits (Patrini, Rozza, Menon, Nock and Qu, CVPR 2017, theorem 2)
    prior     the loss sees logits + log q~ - log q: q~ are the shares of the labels, q those of the truth, which T and
              q~ decide (the likeliest q with q T = q~, by EM). It corrects how often each class occurs, and no more

At test the network answers without T. With T = identity both forms are the method itself. T is
    given      'fer2013' or a file (`data.targets.matrices`);
    estimated  from anchor points (section 5 of the paper): the network trains without T until epoch `start`; then row i
               is the mean prediction for the `anchors` pictures that it was surest are of class i when it last saw them
               in training, and stays so;
    learned    as in VolMinNet (Li, Liu, Han, Niu and Sugiyama, ICML 2021): the rows of I + sigmoid(w) off the diagonal,
               scaled to sum to one, w starting at -2, with `volume` log det T in the loss, because of all T that
               explain the labels the one of the smallest volume is wanted.

Choices where the sources are silent: the mean over several anchors (the paper takes one, or a percentile, which is
none of its class where the class is rare), and training predictions, which need no second pass over the data.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.data.targets.matrices import transition_matrix
from fer_jax.errors import UserError
from fer_jax.methods.method import Aux, Batch, Clock, Config, Memory, Method, ModelFields, Output, Outputs, Terms
from fer_jax.methods.objective import Strategy
from fer_jax.methods.rows import write

KINDS = ("forward", "prior")
STORED = "transition_matrix.json"  # a given matrix, in the work directory of its run
FOUND = ("estimated", "learned")  # matrices that training finds
UNSURE = -2.0  # where w starts
EM_STEPS = 100


def apply(
    method: Method,
    *,
    kind: str = "forward",
    matrix: str = "fer2013",
    start: float = 5.0,
    anchors: int = 30,
    volume: float = 1e-4,
) -> Method:
    """Corrects the logits that the loss sees.

    Args:
        method: any classifier whose loss is a softmax of its logits.
        kind: form of the correction, one of KINDS
        matrix: 'fer2013', a file in CSV or JSON, 'estimated' or 'learned'
        start: with 'estimated', the epoch from which T is used
        anchors: with 'estimated', the number of pictures averaged for each row of T
        volume: with 'learned', the weight of log det T
    """
    estimated, learned = (matrix == name for name in FOUND)

    def memory(fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The last prediction for each example [N, C], if T is estimated, and the label frequencies [C]."""
        target = np.asarray(fields["target"], np.float32)
        shares = {"shares": target.mean(axis=0)}
        return shares | ({"predictions": np.zeros_like(target)} if estimated else {})

    def targets(memory: Memory, batch: Batch, clock: Clock) -> Batch:
        """Adds label_shares [B, C] and, estimated, transition [B, C, C]: the identity until `start`."""
        rows, classes = batch["target"].shape
        added = {"label_shares": jnp.broadcast_to(memory["shares"], (rows, classes))}
        if estimated:
            found = anchor_matrix(memory["predictions"], anchors)
            found = jnp.where(clock.epoch >= start, found, jnp.eye(classes))
            added["transition"] = jnp.broadcast_to(found, (rows, classes, classes))
        return {**batch, **added}

    def remember(memory: Memory, outputs: Outputs, batch: Batch, clock: Clock) -> Memory:
        """Writes the predictions of the batch until `start`."""
        now = write(memory["predictions"], batch["index"], jax.nn.softmax(outputs[0].logits), batch["mask"])
        return {**memory, "predictions": jnp.where(clock.epoch < start, now, memory["predictions"])}

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: Any) -> Terms:
        """The terms of the method on corrected logits, and volume."""
        matrices = transition_of(outputs[0].aux, batch)
        if kind == "forward":
            change = functools.partial(forward, matrices)
        else:
            change = functools.partial(jnp.add, prior_shift(batch["label_shares"], matrices))
        terms = method.loss(tuple(corrected(output, change) for output in outputs), batch, clock, **options)
        if learned:
            terms = {**terms, "volume": jnp.linalg.slogdet(matrices).logabsdet}
        return terms

    def monitor(logits: Float[Array, "B C"], aux: Aux, batch: Batch) -> dict[str, Float[Array, ""]]:
        """The mean of the diagonal of T: the estimated fraction of right labels, averaged over classes."""
        diagonal = jnp.diagonal(transition_of(aux, batch)[0])
        return {**method.monitor(logits, aux, batch), "transition_diagonal": jnp.mean(diagonal)}

    remembers = estimated or kind == "prior"
    given = not (estimated or learned)
    return dataclasses.replace(
        method,
        model=method.model if estimated else with_transition(method.model, learned),
        model_fields=functools.partial(with_rows, method, matrix) if given else method.model_fields,
        kept={**method.kept, **({"strategy.correction.matrix": STORED} if given else {})},
        memory=memory if remembers else None,
        targets=targets if remembers else None,
        remember=remember if estimated else None,
        loss=loss,
        undecayed=(*method.undecayed, *(("transition_weights",) if learned else ())),
        weights={**method.weights, **({"volume": volume} if learned else {})},
        monitor=monitor,
    )


def with_rows(method: Method, matrix: str, config: Config, classes: Sequence[str]) -> ModelFields:
    """The model fields of a method, and the rows of a given matrix, which the run keeps."""
    found = method.model_fields(config, classes)
    rows = transition_matrix(matrix, classes, "config.strategy.correction.matrix")
    if (empty := rows.sum(axis=0) == 0).any():
        raise UserError(
            f"config.strategy.correction.matrix={matrix!r}: by this matrix no picture has the label "
            f"{classes[int(empty.argmax())]}: give another one, or leave the class out (config.data.drop_classes)"
        )
    stored = {"classes": list(classes), "matrix": rows.tolist()}
    return dataclasses.replace(
        found,
        fields={**found.fields, "transition": tuple(map(tuple, rows.tolist()))},
        files={**found.files, STORED: stored},
    )


@functools.cache  # one class for a model, so that programs are shared
def with_transition(model: Any, learned: bool) -> Any:
    """Returns the class of a model, a Classifier, that has T among its intermediates: `transition` [B, C, C]."""

    class Transitioning(model):
        transition: tuple[tuple[float, ...], ...] = ()

        def setup(self) -> None:
            super().setup()
            if learned:
                shape = (self.num_classes, self.num_classes)
                self.transition_weights = self.param("transition_weights", nn.initializers.constant(UNSURE), shape)

        def __call__(self, batch: Batch, *, train: bool) -> tuple[Float[Array, "B C"], dict[str, Any]]:
            logits, aux = super().__call__(batch, train=train)
            rows = learned_matrix(self.transition_weights) if learned else jnp.array(self.transition, jnp.float32)
            return logits, {**aux, "transition": jnp.broadcast_to(rows, (logits.shape[0], *rows.shape))}

    return Transitioning


def transition_of(aux: Aux, batch: Batch) -> Float[Array, "B C C"]:
    """T, the same for every example: estimated, or of the model."""
    return batch["transition"] if "transition" in batch else aux["transition"]


def forward(matrix: Float[Array, "B C C"], logits: Float[Array, "B C"]) -> Float[Array, "B C"]:
    """log(T^T p) of p = softmax(logits), without leaving the logarithm: a sure prediction has no p of zero."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    there = matrix > 0
    log_t = jnp.where(there, jnp.log(jnp.where(there, matrix, 1.0)), -jnp.inf)
    return jax.nn.logsumexp(log_p[:, :, None] + log_t, axis=1)


def prior_shift(shares: Float[Array, "B C"], matrix: Float[Array, "B C C"]) -> Float[Array, "B C"]:
    """log q~ - log q for the shares q~ of the labels, all rows alike."""
    labels = jnp.maximum(shares[0], 1e-6)
    truth = true_shares(labels, matrix[0])
    return jnp.broadcast_to(jnp.log(labels) - jnp.log(jnp.maximum(truth, 1e-6)), shares.shape)


def true_shares(labels: Float[Array, "C"], matrix: Float[Array, "C C"]) -> Float[Array, "C"]:
    """The maximum-likelihood q with q T close to the label frequencies, by EM from the uniform distribution."""

    def step(_: Array, q: Float[Array, "C"]) -> Float[Array, "C"]:
        expected = jnp.maximum(jnp.matmul(q, matrix, precision="highest"), 1e-12)
        return q * jnp.matmul(matrix, labels / expected, precision="highest")

    return jax.lax.fori_loop(0, EM_STEPS, step, jnp.full_like(labels, 1.0 / len(labels)))


def anchor_matrix(predictions: Float[Array, "N C"], anchors: int) -> Float[Array, "C C"]:
    """Row i is the mean prediction for the examples with the largest probabilities of class i."""
    _, places = jax.lax.top_k(predictions.T, min(anchors, len(predictions)))
    return jnp.mean(predictions[places], axis=1)


def learned_matrix(w: Float[Array, "C C"]) -> Float[Array, "C C"]:
    """VolMinNet's T: the diagonal is the largest entry of every row, for any w."""
    rows = jnp.where(jnp.eye(len(w), dtype=bool), 1.0, jax.nn.sigmoid(w))
    return rows / jnp.sum(rows, axis=1, keepdims=True)


def corrected(output: Output, change: Callable[[Array], Array]) -> Output:
    """Corrects all logits that a loss may read, including PSR's branches, RUL's mixtures and Word2Vec's s S."""
    aux = dict(output.aux)
    if "mixed_logits" in aux:
        aux["mixed_logits"] = change(aux["mixed_logits"])
    if "branch_logits" in aux:
        aux["branch_logits"] = jax.vmap(change, in_axes=-1, out_axes=-1)(aux["branch_logits"])
    if "similarity" in aux:
        aux["similarity"] = change(aux["scale"] * aux["similarity"]) / aux["scale"]
    return Output(change(output.logits), aux)


def check(config: Config) -> None:
    """Raises UserError for options that do not fit each other, and for a loss without a softmax."""
    options, here = config.strategy.correction, "config.strategy.correction"
    if options.kind == "prior" and options.matrix == "learned":
        raise UserError(f"{here}.kind='prior' has no gradient for T: give {here}.kind='forward' to learn it")
    for name, only in (("start", "estimated"), ("volume", "learned")):
        if options.matrix == only and not options[name] > 0:
            raise UserError(f"{here}.{name}={options[name]}: give a number above 0")
    if options.matrix == "estimated" and options.start >= config.train.epochs:
        raise UserError(
            f"{here}.start={options.start} is not before the end, config.train.epochs={config.train.epochs}: T would "
            "never be used; give less"
        )
    if config.method == "compound":
        raise UserError(
            f"config.objective='{config.objective}': correction needs a softmax over classes, but compound learns "
            "sigmoids: give another method"
        )
    kind = config.loss.options.get("kind")
    if config.method == "word2vec" and kind not in ("softmax", "distribution"):
        raise UserError(
            f"config.objective='{config.objective}': correction needs a softmax over classes, which "
            f"config.loss.options.kind='{kind}' does not have: give 'softmax' or 'distribution'"
        )


STRATEGY = Strategy(apply=apply, claims=("memory", "targets", "remember"), check=check)
