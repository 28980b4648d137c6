"""ArcFace: an additive angular margin (Deng, Guo, Xue and Zafeiriou, CVPR 2019), for networks that recognize people.

    L = CE(z, y),    z_j = s cos(theta_j + m [j = y]),    cos theta_j = w_j f / (|w_j| |f|)      (eq. 3)

The features f and the weights w_j of each class have length one and there is no bias, so that only angles count. The
margin m is for training alone: at test, and in the training accuracy, z_j = s cos theta_j. With m = 0 it is the
softmax of cosines (NormFace).

Choices where the paper and the authors' code differ or are silent:
  * Beyond theta = pi - m, where cos(theta + m) rises again, z_y = s (cos theta - m sin m), as in the code.
  * A soft target t (mixup, label smoothing) has the margin m t_j for class j.
  * f is what the method classifies. The paper puts a layer of 512 between the trunk and f, which a network that starts
    from this one (config.init_from) would not have.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax import methods
from fer_jax.errors import UserError
from fer_jax.methods import baseline
from fer_jax.methods.method import Batch, Clock, Config, Method, Outputs, Terms
from fer_jax.methods.objective import Strategy, parts
from fer_jax.methods.word2vec import normalize
from fer_jax.nn.linear import full_matmul, uniform_fan_in


def apply(method: Method, *, scale: float = 64.0, margin: float = 0.5) -> Method:
    """Replaces the classifier by cosines, and adds the margin to the angle that the loss sees.

    Args:
        method: a classifier with the loss of the baseline.
        scale: s, the scale of the logits; with few classes or an easy data set, 16 to 32 trains faster
        margin: m, the angular margin in radians
    """

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: Any) -> Terms:
        """The terms of the method on logits with the margin."""
        cosines = (output.logits / scale for output in outputs)
        logits = (scale * with_margin(one, batch["target"], margin) for one in cosines)
        harder = tuple(output._replace(logits=one) for output, one in zip(outputs, logits, strict=True))
        return method.loss(harder, batch, clock, **options)

    return dataclasses.replace(method, model=with_cosines(method.model, scale), loss=loss)


class Cosines(nn.Module):
    """s cos of the angles between features and a direction for each class: [B, P] -> [B, features]."""

    features: int
    scale: float

    @nn.compact
    def __call__(self, x: Float[Array, "*B P"]) -> Float[Array, "*B C"]:
        directions = self.param("kernel", uniform_fan_in(x.shape[-1]), (x.shape[-1], self.features))
        return self.scale * full_matmul(normalize(x), normalize(directions.T).T)


@functools.cache  # one class for a model, so that programs are shared
def with_cosines(model: Any, scale: float) -> Any:
    """Returns the class of a model, a Classifier, that classifies by angles; its own linear layer is not made."""

    class Angular(model):
        def setup(self) -> None:
            super().setup()
            self.cosines = Cosines(self.num_classes, scale)

        def classify(self, features: Float[Array, "*B P"]) -> Float[Array, "*B C"]:
            return self.cosines(features)

    return Angular


def with_margin(cosine: Float[Array, "B C"], target: Float[Array, "B C"], margin: float) -> Float[Array, "B C"]:
    """cos(theta + m t) by class, beyond theta = pi - m t continued as cos theta - m t sin(m t)."""
    added = margin * target
    sine = jnp.sqrt(jnp.maximum(1.0 - cosine**2, 1e-9))  # its slope stays finite where the angle is 0
    turned = cosine * jnp.cos(added) - sine * jnp.sin(added)
    return jnp.where(cosine > -jnp.cos(added), turned, cosine - added * jnp.sin(added))


def check(config: Config) -> None:
    """Raises UserError for options out of range, and for a method with another loss or classifier."""
    options, here = config.strategy.arcface, "config.strategy.arcface"
    if not options.scale > 0:
        raise UserError(f"{here}.scale={options.scale}: give a number above 0, such as 64")
    if not 0 <= options.margin < 1.57:
        raise UserError(f"{here}.margin={options.margin}: give radians, from 0 to 1.5")
    if changing := {"correction", "scn"} & {*parts(config.objective)}:
        raise UserError(
            f"config.objective='{config.objective}': arcface reads angles from logits, which {min(changing)} changes; "
            "leave one of them out"
        )
    method = methods.load(config.method)
    if method.loss is not baseline.loss or method.fit:
        raise UserError(
            f"config.objective='{config.objective}': arcface puts cosines in place of one linear layer with a softmax, "
            f"which {config.method} is not: give baseline, compact, acnn or fan"
        )


STRATEGY = Strategy(apply=apply, claims=(), check=check)
