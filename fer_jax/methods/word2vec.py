"""Word2Vec FER: faces are mapped to the vectors of emotion words, and the nearest word is the answer.

A network's last layer gives a vector u; class k has the constant vector r_k of its word. S_k = cos(u, v_k) with
v_k = r_k / |r_k|; the loss is 1 - S_y; the answer is argmax_k S_k. Word vectors are not orthogonal, so that
confusing fear with surprise can cost less than confusing it with happiness. The runs of `CONTROLS` test that idea.

Nearest-word decoding is biased where a face is ambiguous: the best û for class posteriors p is parallel to V^T p, so
that the answer is argmax G p with the Gram matrix G = V V^T, not argmax p (docs/word2vec.md). `decode='pinv'` undoes
the mixing.

Choices where the source is silent:
  * The class vectors are constants. Only delta of A6 is a parameter; it is added to v_k rather than to r_k, so that
    its penalty means the same for every table.
  * A soft target t (label smoothing, votes) gives the expected loss sum_k t_k (1 - S_k), the same for one-hot t.
  * logits = s S (nearest) or s û V^+ (pinv), s = `scale` or learned: s changes the confidence, not the answer.
  * No normalization layer on u: a cosine ignores the length of u anyway, and such a layer would scale the gradient
    by the inverse length of its input just as the cosine does.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.methods.losses import cross_entropy
from fer_jax.methods.method import Batch, Classifier, Clock, Config, Method, ModelFields, Outputs
from fer_jax.methods.rows import mean_where
from fer_jax.nn.linear import Linear, full_matmul
from fer_jax.nn.trunk import TrunkFactory, trunk_of
from fer_jax.words.classes import STORED, class_vectors

# cosine        A0  1 - S_y, the seed's
# softmax       A1  cross-entropy of softmax(s S); s is learned with model.learn_scale
# margin        A2  the same with s (S_k - m [k = y])
# hybrid        A3  A0 + lambda A1, lambda = loss.weights.softmax
# distribution  A4  KL(d || softmax(s S)), d spreads epsilon over the other words by their similarity
# votes         A5  1 - cos(u, sum_k d_k v_k), d the annotators' votes
# A6 is model.learn_delta=True, with any of them: v_k = normalize(v_k + delta_k), penalty loss.weights.delta |delta|^2
KINDS = ("cosine", "softmax", "margin", "hybrid", "distribution", "votes")
SOFTMAX = ("softmax", "margin", "hybrid", "distribution")  # those in which s has a gradient
DECODINGS = ("nearest", "pinv")

# none    the words as they are.
# center  normalize(r_k - mean_j r_j): without what the words have in common.
# whiten  G^(-1/2) V: orthonormal, nearest to the words; their geometry is gone.
# random  random orthonormal rows: what is left of the method without words.
CONTROLS = ("none", "center", "whiten", "random")
EPS = 1e-8
WORST_CONDITION = 1e3  # of G, where it is inverted
SCALE_RANGE = (1.0, 100.0)


class Model(Classifier):
    """ResNet trunk and a linear layer into the space of the words.

    Attributes:
        num_classes: C.
        vectors: the table of word vectors, 'minilm' or a file (`fer_jax/words`).
        words: which words represent a class.
        class_vectors: the raw vectors r_k [C, dimension] as nested tuples.
        control: what replaces the word vectors in a control, one of CONTROLS.
        control_seed: seed of the random vectors.
        decode: how an output vector is decoded to a class, one of DECODINGS; 'pinv' is for losses without a softmax.
        scale: s, the inverse temperature of the logits. With the cosines of words up to 0.6 apart from 1, s of 16
            and more lets a cross-entropy fall under 0.05.
        learn_scale: learn s = exp(t), with t initialized to log(scale) and s kept within SCALE_RANGE.
        learn_delta: learn an offset of the class vectors (A6).
        depth: layers of the ResNet (`fer_jax.nn.resnet`).
        width: channels of its first stage.
        stem: 'imagenet', 'small' for images of about 48 pixels, or 'caffe' (VGGFace2's).
        backbone: a factory called with dtype and name, used instead of the ResNet.
        dtype: of the trunk's computation; vectors, norms and cosines are float32.
    """

    num_classes: int
    vectors: str = "minilm"
    words: str = "seed"
    class_vectors: tuple[tuple[float, ...], ...] | None = None
    control: str = "none"
    control_seed: int = 0
    decode: str = "nearest"
    scale: float = 16.0
    learn_scale: bool = False
    learn_delta: bool = False
    depth: int = 18
    width: int = 64
    stem: str = "imagenet"
    backbone: TrunkFactory | None = None
    dtype: Any = jnp.float32

    def setup(self) -> None:
        v = self.unit_vectors()
        delta = self.param("delta", nn.initializers.zeros_init(), v.shape) if self.learn_delta else None
        t = self.param("log_scale", nn.initializers.constant(math.log(self.scale)), ()) if self.learn_scale else None
        self.v = jnp.asarray(v) if delta is None else normalize(jnp.asarray(v) + delta)
        self.s = self._scale(t)
        self.learned = {name: x for name, x in (("delta", delta), ("log_scale", t)) if x is not None}

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B D"], dict[str, Any]]:
        """Returns (output u [B, dimension], aux).

        aux has features [B, P], the trunk's maps, output u [B, dimension], similarity S [B, C], scale s,
        class_vectors v [C, dimension], word_similarity G [B, C, C] (of the words, whatever the control, the same for
        every example) and, where they are learned, log_scale t and delta [C, dimension].
        """
        f, maps = trunk_of(self)(batch["image"].astype(self.dtype), train=train)
        f = f.astype(jnp.float32)
        u = Linear(self.v.shape[1], name="head")(f)  # u = W f + b
        words = jnp.asarray(gram_matrix(self.raw_vectors()), jnp.float32)
        return u, {
            "features": f,
            "maps": maps,
            "output": u,
            "similarity": cosines(u, self.v),
            "scale": self.s,
            "class_vectors": self.v,
            "word_similarity": jnp.broadcast_to(words, (u.shape[0], *words.shape)),
            **self.learned,
        }

    def classify(self, features: Float[Array, "B D"]) -> Float[Array, "B C"]:
        """Returns the logits of outputs u."""
        if self.decode == "nearest":
            return self.s * cosines(features, self.v)
        check_invertible(self.unit_vectors(), "decode='pinv'")
        return self.s * jnp.matmul(normalize(features), pseudo_inverse(self.v), precision="highest")

    @nn.nowrap
    def unit_vectors(self) -> Float[np.ndarray, "C D"]:
        """V: the unit class vectors before any training, after the control."""
        r = self.raw_vectors()
        if self.control == "center":
            r = r - r.mean(axis=0)
        elif self.control == "whiten":
            r = whitened(unit(r))
        elif self.control == "random":
            r = random_orthonormal(len(r), r.shape[1], self.control_seed)
        return unit(r).astype(np.float32)

    @nn.nowrap
    def raw_vectors(self) -> Float[np.ndarray, "C D"]:
        """r_k: the vectors of the words, whatever the control, in float64."""
        if self.class_vectors is None or len(self.class_vectors) != self.num_classes:
            raise UserError(
                f"word2vec needs {self.num_classes} class vectors and has {len(self.class_vectors or ())}: "
                "make them with fer_jax.words.classes.class_vectors"
            )
        return np.asarray(self.class_vectors, np.float64)

    def _scale(self, t: Float[Array, ""] | None) -> Float[Array, ""]:
        """s: exp(t) where it is learned, else constant."""
        low, high = SCALE_RANGE
        if not low <= self.scale <= high:
            raise UserError(f"config.model.scale={self.scale}: give {low:g} to {high:g}")
        return jnp.float32(self.scale) if t is None else jnp.clip(jnp.exp(t), low, high)


def normalize(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """x / |x| over the last axis; zero, with a zero gradient, where |x| is no more than eps.

    With max(|x|, eps) in the denominator a dead output would have a gradient of 1 / eps.
    """
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    alive = squared > EPS**2
    return jnp.where(alive, x / jnp.sqrt(jnp.where(alive, squared, 1.0)), 0.0)


def cosines(u: Float[Array, "B D"], v: Float[Array, "C D"]) -> Float[Array, "B C"]:
    """S = Û V^T in float32: the cosine of each output with each unit class vector."""
    return jnp.matmul(normalize(u.astype(jnp.float32)), v.T, precision="highest")


def cosine_loss(similarity: Float[Array, "B C"], target: Float[Array, "B C"]) -> Float[Array, "B"]:
    """A0: 1 - S_y; for a soft target the expectation of it."""
    return jnp.sum(target * (1.0 - similarity), axis=-1)


def margin_loss(
    similarity: Float[Array, "B C"], target: Float[Array, "B C"], scale: Float[Array, ""], margin: float
) -> Float[Array, "B"]:
    """A2: cross-entropy of softmax(s (S_k - m [k = y]))."""
    return cross_entropy(scale * (similarity - margin * target), target)


def word_targets(gram: Float[Array, "C C"], epsilon: float, tau: float) -> Float[Array, "C C"]:
    """A4: row y is d = (1 - e) [k = y] + e q, q = softmax over k != y of G_yk / tau."""
    own = jnp.eye(len(gram), dtype=bool)
    q = jax.nn.softmax(jnp.where(own, -jnp.inf, gram / tau), axis=-1)
    return (1.0 - epsilon) * own.astype(jnp.float32) + epsilon * q


def kl_divergence(target: Float[Array, "B C"], logits: Float[Array, "B C"]) -> Float[Array, "B"]:
    """KL(target || softmax(logits)) in nats."""
    log_t = jnp.log(jnp.where(target > 0, target, 1.0))
    return cross_entropy(logits, target) + jnp.sum(target * log_t, axis=-1)


def vote_loss(u: Float[Array, "B D"], v: Float[Array, "C D"], votes: Float[Array, "B C"]) -> Float[Array, "B"]:
    """A5: 1 - û . t, t = normalize(sum_k d_k v_k). Without any votes t is 0: a constant, nothing is learned."""
    return 1.0 - jnp.sum(normalize(u) * normalize(full_matmul(votes.astype(jnp.float32), v)), axis=-1)


def model_fields(config: Config, classes: Sequence[str]) -> ModelFields:
    """Reads the vectors of the class words; the run keeps them, so that it does not need their source again."""
    table = class_vectors(config.model.vectors, config.model.words, classes)
    return ModelFields(
        fields={"class_vectors": table.vectors},
        facts={"class_vectors": table.summary()},
        files={STORED: table.as_json()},
    )


def wider(model: Model) -> Model:
    """The model with one class more, which has the vector of the first one."""
    vectors: Any = model.class_vectors
    return model.clone(num_classes=model.num_classes + 1, class_vectors=(*vectors, vectors[0]))


def check(config: Config) -> None:
    """Raises UserError for options that have no effect together."""
    kind = config.loss.options.kind
    if config.model.decode == "pinv" and kind in SOFTMAX:
        raise UserError(
            f"config.model.decode='pinv' inverts the mixing of the cosine loss, but config.loss.options.kind='{kind}' "
            "trains a softmax over the cosines themselves: give decode='nearest', or kind='cosine' or 'votes'"
        )
    if kind == "votes" and config.data.label_smoothing:
        raise UserError(
            "config.loss.options.kind='votes' learns from the votes alone, which config.data.label_smoothing leaves as "
            "they are: give 0"
        )


def loss(
    outputs: Outputs,
    batch: Batch,
    clock: Clock,
    *,
    kind: str = "cosine",
    margin: float = 0.2,
    epsilon: float = 0.1,
    tau: float = 0.1,
) -> dict[str, Float[Array, "B"]]:
    """The terms of a kind of loss.

    Args:
        outputs: of the views; the first one counts.
        batch: reads target, and for 'votes' vote_target.
        clock: not read.
        kind: the loss, one of KINDS; 'cosine' is the published one.
        margin: m, the margin of A2
        epsilon: e of A4, the fraction of a target that moves to similar words
        tau: tau_w of A4, the temperature of the similarities
    """
    del clock
    aux = outputs[0].aux
    s, target, similarity = aux["scale"], batch["target"], aux["similarity"]
    if "log_scale" in aux and kind not in SOFTMAX:
        raise UserError(
            f"config.model.learn_scale: config.loss.options.kind='{kind}' has no softmax to learn the scale from"
        )
    terms = {}
    if kind in ("cosine", "hybrid"):
        terms["cosine"] = cosine_loss(similarity, target)
    if kind in ("softmax", "hybrid"):
        terms["softmax"] = cross_entropy(s * similarity, target)  # A1
    if kind == "margin":
        terms["softmax"] = margin_loss(similarity, target, s, margin)
    if kind == "distribution":
        if not (0.0 <= epsilon < 1.0 and tau > 0.0):
            raise UserError(f"config.loss.options: give epsilon={epsilon} in [0, 1) and tau={tau} above 0")
        gram = full_matmul(aux["class_vectors"], aux["class_vectors"].T)
        d = full_matmul(target, jax.lax.stop_gradient(word_targets(gram, epsilon, tau)))
        terms["distribution"] = kl_divergence(d, s * similarity)
    if kind == "votes":
        if "vote_target" not in batch:
            raise UserError("config.loss.options.kind='votes': this data set has no votes; give 'cosine'")
        terms["cosine"] = vote_loss(aux["output"], aux["class_vectors"], batch["vote_target"])
    if "delta" in aux:  # A6
        terms["delta"] = jnp.broadcast_to(jnp.sum(aux["delta"] ** 2), len(similarity))
    return terms


def monitor(logits: Float[Array, "B C"], aux: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """Numbers that show a collapse to the mean vector: there S is high for every class and does not vary over them."""
    del logits
    similarity, valid = aux["similarity"], batch["mask"]
    true = jnp.take_along_axis(similarity, jnp.argmax(batch["target"], -1)[:, None], axis=-1)[:, 0]
    return {
        "cosine_true": mean_where(true, valid),
        "cosine_spread": mean_where(jnp.std(similarity, axis=-1), valid),
        "output_norm": mean_where(jnp.linalg.norm(aux["output"], axis=-1), valid),
        "scale": aux["scale"],
    }


def score(model: Model, logits: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """The method's own measure of a set of predictions: the semantic error, by the words whatever the control."""
    confusion = np.zeros((model.num_classes, model.num_classes), np.int64)
    np.add.at(confusion, (labels, logits.argmax(axis=-1)), 1)
    return {"semantic_error": semantic_error(gram_matrix(model.raw_vectors()), confusion)}


def semantic_error(gram: Float[np.ndarray, "C C"], confusion: np.ndarray) -> float | None:
    """Mean of 1 - G[truth, prediction] over the errors: how far from the truth, in words, a mistake is.

    Args:
        gram: cosines of the class words.
        confusion: counts [C, C], rows are the truth.

    Returns:
        None where there is no error.
    """
    errors = np.array(confusion, np.float64)
    np.fill_diagonal(errors, 0.0)
    return float((errors * (1.0 - gram)).sum() / errors.sum()) if errors.any() else None


def unit(rows: Float[np.ndarray, "C D"]) -> Float[np.ndarray, "C D"]:
    """Rows scaled to length one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), EPS)


def gram_matrix(rows: Float[np.ndarray, "C D"]) -> Float[np.ndarray, "C C"]:
    """G = V V^T: the cosine of each pair of rows."""
    v = unit(np.asarray(rows, np.float64))
    return v @ v.T


def whitened(v: Float[np.ndarray, "C D"]) -> Float[np.ndarray, "C D"]:
    """G^(-1/2) V: of all orthonormal sets of rows that with the least squared distance from V (Löwdin)."""
    check_invertible(v, "control='whiten'")
    values, vectors = np.linalg.eigh(v @ v.T)
    return (vectors / np.sqrt(values)) @ vectors.T @ v


def random_orthonormal(rows: int, dimension: int, seed: int) -> Float[np.ndarray, "C D"]:
    """Rows that are uniformly distributed over the orthonormal ones; the seed decides."""
    if seed < 0 or rows > dimension:
        raise UserError(
            f"config.model.control='random': give control_seed={seed} of at least 0 and vectors of at least "
            f"{rows} numbers, not {dimension}"
        )
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, rows)))
    return (q * np.sign(np.diag(r))).T  # the signs make the distribution uniform


def pseudo_inverse(v: Float[Array, "C D"]) -> Float[Array, "D C"]:
    """V^+ = V^T G^-1, for which û V^+ is the mixture p of class vectors that û is."""
    return jnp.linalg.solve(full_matmul(v, v.T), v).T


def check_invertible(v: Float[np.ndarray, "C D"], what: str) -> None:
    """Raises UserError if the Gram matrix of the class vectors is ill-conditioned."""
    v = np.asarray(v, np.float64)
    condition = float(np.linalg.cond(v @ v.T))
    if not condition < WORST_CONDITION:
        raise UserError(
            f"config.model.{what}: the Gram matrix of these class vectors has a condition number of {condition:.3g}, "
            f"above {WORST_CONDITION:g}: give other words, or leave this option out"
        )


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"cosine": 1.0, "softmax": 1.0, "distribution": 1.0, "delta": 1e-2},
    check=check,
    model_fields=model_fields,
    kept={"model.vectors": STORED},
    wider=wider,
    monitor=monitor,
    score=score,
    shown=("similarity", "word_similarity"),
    shown_examples=100,  # their means are what is shown
)
