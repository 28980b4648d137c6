"""Geometry of a still face: 68 landmarks, no pixel, and a classifier of scikit-learn.

The still-image counterpart of Ghimire and Lee (Sensors 13(6), 2013), whose method for sequences is
`geometry_sequences`. Each face is centered, scaled to an inter-ocular distance of one and turned to the mean shape
(Procrustes). Described by its coordinates, all 2,278 distances between two landmarks, and 22 ratios and angles of eyes,
brows and mouth, it is standardized, reduced by PCA and classified by a support vector machine, boosted trees or
logistic regression. Nothing is learned by gradients: scikit-learn fits, JAX evaluates.

Choices where the sources are silent:
  * The mean shape is made symmetric, so that a mirrored face has mirrored features.
  * A face without landmarks, or whose landmarks coincide where a ratio divides by their distance, gets no features and
    the same logit, 0, for every class: no prediction, an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.data.sources.points import MIRROR
from fer_jax.errors import UserError
from fer_jax.methods import learners
from fer_jax.methods.baseline import loss
from fer_jax.methods.learners import LEARNERS as LEARNERS
from fer_jax.methods.method import Classifier, Config, Method, Scores
from fer_jax.methods.strategies.ldl_alsg import EYES, aligned
from fer_jax.nn.linear import full_matmul

LANDMARKS = 68
FIRST, SECOND = np.array([*itertools.combinations(range(LANDMARKS), 2)]).T  # all 2,278 pairs
# Landmarks in iBUG order, from 0. A ratio is the distance of the first two over that of the last two.
RATIOS = np.array([
    (37, 41, 36, 39), (38, 40, 36, 39), (43, 47, 42, 45), (44, 46, 42, 45),  # openings of the eyes
    (17, 36, 36, 39), (19, 37, 36, 39), (21, 39, 36, 39), (22, 42, 42, 45), (24, 44, 42, 45), (26, 45, 42, 45),  # brows
    (21, 22, 39, 42),  # between the brows
    (48, 54, 36, 45), (51, 57, 48, 54), (62, 66, 60, 64), (33, 51, 27, 33), (8, 57, 8, 33),  # mouth, nose, chin
])  # fmt: skip
# An angle is that at the second landmark between the other two.
ANGLES = np.array([
    (48, 51, 54), (48, 57, 54), (36, 48, 54), (45, 54, 48), (17, 19, 21), (26, 24, 22),  # lips, their corners, brows
])  # fmt: skip
FEATURES = 2 * LANDMARKS + len(FIRST) + len(RATIOS) + len(ANGLES)
CONSTANT = 1e-6  # a feature with a smaller deviation is dropped
AT_ONCE = 1024  # faces, to bound the memory
zeros = nn.initializers.zeros_init()


class Model(Classifier):
    """Landmarks to features to a fitted classifier.

    Attributes:
        num_classes: C.
        learner: the classifier, one of LEARNERS.
        variance: share of the variance that PCA keeps.
        components: maximum number of PCA components.
        cost: C of 'svc' and 'logistic', the inverse strength of their regularization.
        support: maximum number of training faces for 'svc', and so of its support vectors.
        rounds: maximum number of trees for 'boosting'.
        dtype: not used: everything is float32.
    """

    num_classes: int
    learner: str = "svc"
    variance: float = 0.98
    components: int = 64
    cost: float = 10.0
    support: int = 8192
    rounds: int = 400
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.mean_shape = self.param("mean_shape", zeros, (LANDMARKS, 2))
        self.center = self.param("center", zeros, (FEATURES,))
        self.scale = self.param("scale", zeros, (FEATURES,))
        self.axes = self.param("axes", zeros, (FEATURES, self.components))
        self.classifier = learners.build(self)

    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B K"], dict[str, Any]]:
        """Returns (the principal components [B, K], NaN without landmarks; aux with features, the landmarks [B, 136]).

        Needs batch['points'] [B, 68, 2], (x, y) in pixels of batch['image'], NaN where no landmarks were found.
        """
        points = batch["points"].astype(jnp.float32)
        x = (describe(points, self.mean_shape) - self.center) * self.scale
        return full_matmul(x, self.axes), {"features": points.reshape(len(points), -1), "maps": {}}

    def classify(self, features: Float[Array, "B K"]) -> Float[Array, "B C"]:
        """Returns the logits [B, C]; 0 for features that are not finite."""
        found = jnp.all(jnp.isfinite(features), axis=-1, keepdims=True)
        logits = jnp.where(found, self.classifier(jnp.where(found, features, 0.0)), 0.0)
        return jax.lax.stop_gradient(logits)


def describe(points: Float[Array, "B 68 2"], mean_shape: Float[Array, "68 2"]) -> Float[Array, "B P"]:
    """Returns coordinates, distances, ratios and angles of faces, invariant to position, size and roll."""
    shape = turned(points, mean_shape)
    distances = between(shape, FIRST, SECOND)
    ratios = between(shape, RATIOS[:, 0], RATIOS[:, 1]) / between(shape, RATIOS[:, 2], RATIOS[:, 3])
    one, other = (shape[:, ANGLES[:, side]] - shape[:, ANGLES[:, 1]] for side in (0, 2))
    angles = jnp.arctan2(jnp.abs(cross(one, other)), jnp.sum(one * other, axis=-1))
    return jnp.concatenate([shape.reshape(len(shape), -1), distances, ratios, angles], axis=1)


def turned(points: Float[Array, "B 68 2"], mean_shape: Float[Array, "68 2"]) -> Float[Array, "B 68 2"]:
    """Returns shapes centered, with an inter-ocular distance of one, and turned as near to the mean shape as can be."""
    shape = points - jnp.mean(points, axis=1, keepdims=True)
    shape = shape / between(shape, *np.array(EYES)[:, None])[:, :, None]
    along, across = jnp.sum(mean_shape * shape, axis=(1, 2)), jnp.sum(cross(mean_shape, shape), axis=1)
    size = jnp.sqrt(along**2 + across**2)
    cos, sin = (along / size)[:, None], (across / size)[:, None]
    x, y = shape[..., 0], shape[..., 1]
    return jnp.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)


def between(shape: Float[Array, "B L 2"], first: np.ndarray, second: np.ndarray) -> Float[Array, "B D"]:
    """Returns the distances between the landmarks `first` [D] and `second` [D]."""
    return jnp.sqrt(jnp.sum((shape[:, first] - shape[:, second]) ** 2, axis=-1))


def cross(a: Float[Array, "... 2"], b: Float[Array, "... 2"]) -> Float[Array, ...]:
    """Returns a_x b_y - a_y b_x."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def fit(
    model: Model, features: Float[np.ndarray, "N 136"], targets: Float[np.ndarray, "N C"], seed: int
) -> Mapping[str, np.ndarray]:
    """Returns all parameters, fitted to the landmarks of those training faces that can be measured.

    Raises:
        UserError: if faces of fewer than two classes can, or scikit-learn is not installed.
    """
    learners.scikit_learn("svm")
    points, found = features.reshape(-1, LANDMARKS, 2), np.isfinite(features).all(axis=1)
    known = found & np.all(between(jnp.asarray(points), RATIOS[:, 2], RATIOS[:, 3]) > 0, axis=1)
    if coincide := int((found & ~known).sum()):
        print(f"landmarks of {coincide} of {len(points)} training faces coincide: they are left out", flush=True)
    points, label = points[known], targets[known].argmax(axis=1)
    if not len(points):
        raise UserError("no training face has landmarks: run `python -m tfds_builders landmarks` for the data set")
    mean = symmetric_mean(points)
    x = np.asarray(jax.lax.map(lambda face: describe(face[None], jnp.asarray(mean))[0], points, batch_size=AT_ONCE))
    center, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > CONSTANT, 1 / np.maximum(spread, CONSTANT), 0).astype(np.float32)
    x = (x - center) * scale
    axes = principal_axes(x, model.variance, model.components, seed)
    fitted = learners.fit(model, x @ axes, label, seed)
    whole = {"mean_shape": mean, "center": center, "scale": scale, "axes": axes}
    return whole | {f"classifier/{name}": values for name, values in fitted.items()}


def symmetric_mean(points: Float[np.ndarray, "N 68 2"]) -> Float[np.ndarray, "68 2"]:
    """Returns the mean of the aligned shapes and of their mirror images, eyes level."""
    mean = aligned(points).mean(axis=0).reshape(LANDMARKS, 2)
    eyes = mean[EYES[1]] - mean[EYES[0]]
    turn = np.array([[eyes[0], -eyes[1]], [eyes[1], eyes[0]]]) / np.linalg.norm(eyes)
    mean = mean @ turn
    return ((mean + mean[list(MIRROR["face68"])] * [-1, 1]) / 2).astype(np.float32)


def principal_axes(x: Float[np.ndarray, "N P"], variance: float, most: int, seed: int) -> Float[np.ndarray, "P K"]:
    """Returns the axes [P, most] of PCA; those beyond the share `variance` of the variance are 0."""
    count = min(most, *x.shape)
    with np.errstate(divide="ignore", invalid="ignore"):  # of identical faces, which `learners.fit` refuses
        found = learners.scikit_learn("decomposition").PCA(count, svd_solver="randomized", random_state=seed).fit(x)
    share = found.explained_variance_ratio_
    axes = np.zeros((x.shape[1], most), np.float32)
    axes[:, :count] = found.components_.T * (np.cumsum(share) - share < variance)
    return axes


def check(config: Config) -> None:
    """Raises UserError unless the config provides 68 landmarks, and for options out of range."""
    if config.data.points != "face68":
        raise UserError(
            f"config.data.points='{config.data.points}': {config.method} measures 68 landmarks; set it to 'face68'"
        )
    for name, most, limit in (("variance", 1.0, " and at most 1"), ("cost", np.inf, "")):
        if not 0 < config.model.get(name, 1.0) <= most:
            raise UserError(f"config.model.{name}={config.model[name]}: give a number above 0{limit}")


def score(model: Any, logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Returns `coverage`, the share of faces with landmarks, and the accuracy on these."""
    del model
    found = np.ptp(logits, axis=1) > 0
    right = logits.argmax(axis=1) == labels
    return {"coverage": float(found.mean()), "accuracy_found": float(right[found].mean()) if found.any() else None}


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"cross_entropy": 1.0},
    check=check,
    fit=fit,
    published={},
    score=score,
)
