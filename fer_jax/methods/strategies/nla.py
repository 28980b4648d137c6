"""NLA: Navigating Label Ambiguity (Lee, Choi, Kim, Kim and Nam, AAAI 2025, arXiv 2502.09993).

Ambiguous examples should get more weight than easy ones, and wrongly labeled examples less. Two probabilities tell them
apart, p_GT of the label and p_NN of the nearest negative, the most probable other class:

    L = 1/2 (1 + w) CE + 1/2 JSD(p(x) || p(x')),    w = N((p_GT, p_NN); mu, Sigma)

with the mirror image x', and Jensen-Shannon's divergence JSD between the two predictions. The Gaussian N begins around
(.5, .5), undecided between two classes, and moves to (.30, .15), ambiguous between many, where it is narrow across the
diagonal: a certain prediction, right or against the label, weighs next to nothing.

Two forms of w (`weighting`):
    'moving': one Gaussian, whose mean moves. The covariance of the moving one is not published; it moves between the
        two of the code, from .8 I to ((.85, .80), (.80, .85)), both with 1 - exp(-T / `epochs`), T whole epochs.
    'released': the authors' code as of May 2025 has two Gaussians that stay. One around (.5, .5) is for examples whose
        label is the most probable class; its covariance, .8 on the diagonal, moves to -.5 beside it. The other,
        around (.30, .15) with ((.85, .80), (.80, .85)), is for the rest. There the weight has a gradient.

Choices where the sources are silent: x' is the mirror image of all that augmentation made of x, and passes after it;
the label of a soft target is its largest class; the divergence is the usual one, a mean over the batch (the code takes
softmaxes of the mean of logits, the arguments of KL exchanged, and a sum); the moving weight has no gradient. The 60
epochs of the code make its exp(-15 T / 60) the default `epochs` of 4. The first CE is the method's own loss.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Batch, Clock, Config, Method, Outputs, View
from fer_jax.methods.objective import Strategy

WEIGHTINGS = ("moving", "released")
UNDECIDED, AMBIGUOUS = (0.5, 0.5), (0.30, 0.15)  # (p_GT, p_NN)
ROUND, NARROW, ACROSS = (0.8, 0.0), (0.85, 0.80), (0.8, -0.5)  # (variance of both, covariance)


def apply(
    method: Method,
    *,
    weighting: str = "moving",
    epochs: float = 4.0,
    classification: float = 0.5,
    noise_aware: float = 0.5,
    consistency: float = 0.5,
) -> Method:
    """Sets `views`, scales the method's own loss, and adds the terms 'noise_aware' and 'consistency'.

    Args:
        method: any classifier of images.
        weighting: the form of the weight, one of WEIGHTINGS
        epochs: time constant of the Gaussian's drift, in epochs
        classification: weight of the method's own loss
        noise_aware: weight of the cross-entropy that is weighted by the Gaussian
        consistency: weight of the divergence from the prediction of the mirror image
    """

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: str | float) -> dict[str, Float[Array, "B"]]:
        """Reads target, and what the method reads."""
        logits, mirrored = (output.logits.astype(jnp.float32) for output in outputs)
        own = method.loss(outputs[:1], batch, clock, **options)
        w = weight(jax.nn.softmax(logits), batch["target"], moved(clock.epoch, epochs), weighting)
        return {name: classification * term for name, term in own.items()} | {
            "noise_aware": w * cross_entropy(logits, batch["target"]),
            "consistency": jensen_shannon(logits, mirrored),
        }

    weights = {**method.weights, "noise_aware": noise_aware, "consistency": consistency}
    return dataclasses.replace(method, views=(View(), View(mirror=True)), loss=loss, weights=weights)


def moved(epoch: Float[Array, ""], epochs: float) -> Float[Array, ""]:
    """1 - exp(-T / epochs): how far the Gaussian has moved in T whole epochs, from 0 to 1."""
    return 1.0 - jnp.exp(-jnp.floor(epoch) / epochs)


def weight(
    p: Float[Array, "B C"], target: Float[Array, "B C"], share: Float[Array, ""], weighting: str
) -> Float[Array, "B"]:
    """w of each example, where the Gaussian has moved by `share`."""
    label = jax.nn.one_hot(jnp.argmax(target, axis=-1), p.shape[-1], dtype=jnp.bool_)
    pair = jnp.stack([jnp.sum(jnp.where(label, p, 0.0), axis=-1), jnp.max(jnp.where(label, 0.0, p), axis=-1)])
    if weighting == "moving":
        return jax.lax.stop_gradient(
            gaussian(pair, between(UNDECIDED, AMBIGUOUS, share), between(ROUND, NARROW, share))
        )
    right = gaussian(pair, jnp.array(UNDECIDED), between(ROUND, ACROSS, share))
    return jnp.where(pair[0] >= pair[1], right, gaussian(pair, jnp.array(AMBIGUOUS), jnp.array(NARROW)))


def between(first: tuple[float, float], last: tuple[float, float], share: Float[Array, ""]) -> Float[Array, "2"]:
    """The point at this share of the way."""
    return jnp.array(first) + share * (jnp.array(last) - jnp.array(first))


def gaussian(x: Float[Array, "2 B"], mean: Float[Array, "2"], spread: Float[Array, "2"]) -> Float[Array, "B"]:
    """The density of N(mean, ((a, b), (b, a))) for the spread (a, b), in its principal axes (1, 1) and (1, -1)."""
    variances = jnp.stack([spread[0] + spread[1], spread[0] - spread[1]])
    (u, v), root = x - mean[:, None], jnp.sqrt(2.0)
    squares = jnp.stack([(u + v) / root, (u - v) / root]) ** 2 / variances[:, None]
    return jnp.exp(-jnp.sum(squares, axis=0) / 2) / (2 * jnp.pi * jnp.sqrt(jnp.prod(variances)))


def jensen_shannon(logits: Float[Array, "B C"], others: Float[Array, "B C"]) -> Float[Array, "B"]:
    """1/2 KL(p || m) + 1/2 KL(q || m) in nats, m = (p + q) / 2: from 0 to ln 2."""
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    each = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
    return jnp.sum(each, axis=-1) / 2


def check(config: Config) -> None:
    """Raises UserError for parameters out of range, and for targets without one label."""
    options = config.strategy.nla
    for name in ("classification", "noise_aware", "consistency"):
        if not options[name] >= 0:
            raise UserError(f"config.strategy.nla.{name}={options[name]}: give a number of at least 0")
    if not options.epochs > 0:
        raise UserError(f"config.strategy.nla.epochs={options.epochs}: give a number above 0")
    if config.data.target == "multi_target":
        raise UserError(
            "config.objective: nla weighs an example by the probability of its label, and "
            "config.data.target='multi_target' counts each of several classes as right: give 'label' or 'probability'"
        )


STRATEGY = Strategy(apply=apply, claims=("views",), needs=("classes", "images", "one view"), check=check)
