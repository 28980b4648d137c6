"""Compound expressions (Du, Tao and Martinez, PNAS 2014) as pairs of basic ones: six sigmoids and a table of pairs.

The network says of each of the six basic emotions l whether it takes part, p_l = sigmoid(z_l), and is trained by the
sigmoid cross-entropy of the parts. Row c of the table T has 1 for the parts of class c and 0 for the others, so that
neutral is the class of no part. The probability of a class follows from the parts as if they were independent, among
the classes that there are:

    log P(c) = -KL(T_c || p) + const = sum_l T_cl z_l + H(T_c) + const

(H is the entropy, 0 in a row of zeros and ones). So the classifier is linear, and has no parameters of a class: a
network goes from the 22 categories to RAF-DB's eleven with all its weights. A sum over the parts alone would rank the
part of a pair above the pair. Choice: three words name a pair of another class with an emphasis (appalled, hatred,
awed); there the weaker part has T_cl = 1/2.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import entr

from fer_jax.errors import UserError
from fer_jax.labels import PAIR_WORDS, PARTS, are_compound, parts_of
from fer_jax.methods import baseline
from fer_jax.methods.losses import affect_terms
from fer_jax.methods.method import Batch, Clock, Config, ModelFields, Outputs
from fer_jax.nn.linear import Linear, full_matmul

WEAKER = 0.5  # T_cl of the part without the emphasis
FOLLOW = 0.01  # how fast the shares of the parts follow those of a batch


class Model(baseline.Model):
    """The baseline with a sigmoid for each part in place of a softmax over the classes.

    Attributes:
        table: T [C, 6] as nested tuples, the parts of each class in the order of `labels.PARTS`.
        depth: layers of the ResNet (`fer_jax.nn.resnet`).
        width: channels of its first stage.
        stem: 'imagenet', 'small' for images of about 48 pixels, or 'caffe' (VGGFace2's).
        dropout: rate on the features while training (needs the RNG stream 'dropout').
        affect: predict valence and arousal too, where the data set has them.
    """

    table: tuple[tuple[float, ...], ...] = None  # pyright: ignore  # of `model_fields`

    def setup(self) -> None:
        self.classifier = Linear(len(PARTS))
        # p_l of VAC: the share of the training examples with part l, at first as if all classes were equally frequent
        self.share = self.variable("batch_stats", "share", lambda: jnp.mean(jnp.asarray(self.table), axis=0))

    def classify(self, features: Float[Array, "*B P"]) -> Float[Array, "*B C"]:
        """Returns the logits of features: sum_l T_cl z_l + H(T_c)."""
        return class_logits(self.classifier(features), np.asarray(self.table))

    def __call__(self, batch: Batch, *, train: bool) -> tuple[Float[Array, "B C"], dict[str, Any]]:
        """Returns (logits [B, C], aux).

        Beside those of the baseline aux has part_logits z [B, 6], table T [C, 6] and share [6], a moving average over
        the batches of training.
        """
        features, aux = self.embed(dict(batch), train=train)
        parts, table = self.classifier(features), jnp.asarray(self.table)
        if train and not self.is_initializing():
            mask = batch["mask"].astype(jnp.float32)
            seen = full_matmul(mask, full_matmul(batch["target"], table)) / jnp.maximum(jnp.sum(mask), 1.0)
            self.share.value += FOLLOW * (seen - self.share.value)
        return class_logits(parts, np.asarray(self.table)), {
            **aux,
            "part_logits": parts,
            "table": table,
            "share": self.share.value,
        }


def class_logits(parts: Float[Array, "*B L"], table: Float[np.ndarray, "C L"]) -> Float[Array, "*B C"]:
    """Returns sum_l T_cl z_l + H(T_c) for the logits z of the parts."""
    entropy = (entr(table) + entr(1 - table)).sum(axis=1)
    return full_matmul(parts, jnp.asarray(table.T, jnp.float32)) + jnp.asarray(entropy, jnp.float32)


def part_table(classes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Returns T [C, 6].

    Raises:
        UserError: for a class that is neither neutral nor made of `labels.PARTS`.
    """
    rows = []
    for name in classes:
        parts = parts_of(name)
        if parts is None:
            raise UserError(
                f"config.method=compound knows neutral, {', '.join(PARTS)} and pairs of them, not the class '{name}': "
                f"leave it out with config.data.drop_classes='{name}'"
            )
        spoken = {parts[1]: WEAKER} if name.strip().lower() in PAIR_WORDS else {}  # the first part is emphasized
        row = dict.fromkeys(PARTS, 0.0) | dict.fromkeys(parts, 1.0) | spoken
        rows.append(tuple(row.values()))
    return tuple(rows)


def model_fields(config: Config, classes: Sequence[str]) -> ModelFields:
    """The table of the data set's classes.

    Raises:
        UserError: unless some of them are compound.
    """
    del config
    table = part_table(classes)
    if not are_compound(classes):
        raise UserError(
            f"config.method=compound learns compound expressions, but the classes are {', '.join(classes)}: set "
            "config.data.dataset to a compound data set, such as synthetic_faces/compound, or config.method=baseline"
        )
    return ModelFields({"table": table})


def loss(outputs: Outputs, batch: Batch, clock: Clock, *, label_weights: bool = False) -> dict[str, Float[Array, "B"]]:
    """The sigmoid cross-entropy of the parts, summed over the six.

    Args:
        outputs: of the views; the first one counts.
        batch: reads target; the parts of a mixture of classes are mixed alike.
        clock: not read.
        label_weights: give rare parts more weight (VAC): exp(1 - p_l) where part l is present, exp(p_l) where it is
            absent, with p_l the fraction of the examples that have it
    """
    del clock
    aux = outputs[0].aux
    z, table, share = (aux[name] for name in ("part_logits", "table", "share"))
    target = full_matmul(batch["target"], table)
    there, absent = jax.nn.softplus(-z), jax.nn.softplus(z)
    if label_weights:
        there, absent = jnp.exp(1.0 - share) * there, jnp.exp(share) * absent
    terms = {"cross_entropy": jnp.sum(target * there + (1.0 - target) * absent, axis=-1)}
    return terms | affect_terms(aux["affect"], batch) if "affect" in aux else terms


METHOD = dataclasses.replace(baseline.METHOD, model=Model, loss=loss, model_fields=model_fields)
