"""Geometric features of sequences (Ghimire and Lee, Sensors 13(6), 2013): how 68 landmarks move, and no pixel.

Every frame is turned and scaled so that the eyes are level and one apart. A clip is described by the tracks of all
landmarks (where they went since the first frame) and of all 2,278 pairs of them (by how much they came closer and
turned since then), resampled to T steps. The prototype of a class is the median of its training tracks, and the weak
classifier of a feature predicts the class with the nearest prototype by dynamic time warping (DTW). Multi-class
AdaBoost (SAMME) selects features; the boosted classifier is used, or a support vector machine on their distances.

The paper finds its landmarks, apparently 52, by elastic bunch graph matching. Choices where it is silent:
  * Each frame is scaled by its own distance between the eyes, so that a face that comes nearer does not move. Dividing
    by that of the first frame would change nothing more: it is one.
  * Positions are resampled, linearly among the frames with landmarks, and distances and angles taken of the result.
  * DTW has Euclidean local cost and a band of `window` steps.
  * A feature that is selected several times counts once in the support vector machine.
  * A clip with fewer than two frames with landmarks, in which nothing moves, gets the same logit, 0, for every class:
    no prediction, an error. So does one whose first frame has none, unless `first_frame` is off: no later frame
    stands in for the neutral face.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from fer_jax.errors import UserError, say_once
from fer_jax.methods import geometry, learners
from fer_jax.methods.baseline import loss
from fer_jax.methods.geometry import CONSTANT, FIRST, LANDMARKS, SECOND, cross, score
from fer_jax.methods.learners import KernelMachine
from fer_jax.methods.method import Classifier, Config, Method

LEARNERS = ("svc", "boosting")
EYE, OTHER_EYE = slice(36, 42), slice(42, 48)
FEATURES = LANDMARKS + len(FIRST)
NEUTRAL_FIRST = ("ckplus", "mmi", "oulu_casia", "synthetic_faces")  # data sets whose clips begin with a neutral face
NEVER = 1e3  # where the prototypes of a class without examples lie: farther than any other
SMALLEST_ERROR = 1e-6  # of a weak classifier, so that its weight is finite
AT_ONCE = 16  # clips, to bound the memory
zeros = nn.initializers.zeros_init()


class Model(Classifier):
    """Landmarks of frames to distances from prototypes to a fitted classifier.

    Attributes:
        num_classes: C.
        learner: the classifier, one of LEARNERS; 'boosting' is the one that also selects the features.
        first_frame: whether tracks are relative to the first frame, a neutral face; False is a control.
        steps: T, the number of steps of a resampled track.
        window: maximum warp of DTW, in steps.
        rounds: R, the maximum number of boosting rounds, and so of selected features.
        cost: C of 'svc'.
        support: maximum number of training clips for 'svc', and so of its support vectors.
        dtype: not used: everything is float32.
    """

    num_classes: int
    learner: str = "svc"
    first_frame: bool = True
    steps: int = 12
    window: int = 3
    rounds: int = 200
    cost: float = 10.0
    support: int = 2048
    dtype: Any = jnp.float32

    def setup(self) -> None:
        shape = (self.rounds, self.num_classes)
        self.feature = self.param("feature", zeros, shape[:1])  # numbers of features, as float32
        self.alpha = self.param("alpha", zeros, shape[:1])
        self.prototypes = self.param("prototypes", zeros, (*shape, self.steps, 2))
        self.center, self.scale = self.param("center", zeros, shape), self.param("scale", zeros, shape)
        if self.learner == "svc":
            self.classifier = KernelMachine(self.num_classes, self.support)

    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B D"], dict[str, Any]]:
        """Returns (DTW distances of the selected features from all prototypes, NaN without landmarks; aux).

        Needs batch['points'] [B, T, 68, 2], NaN where no landmarks were found, or the same as `frame_features`
        [B, T, 136]; and `frame_mask` bool [B, T]. aux has frame_features, and features [B, steps * 136], the
        resampled positions.
        """
        frames = batch["frame_features"] if "frame_features" in batch else batch["points"].astype(jnp.float32)
        frames = frames.reshape(*batch["frame_mask"].shape, -1)
        points = upright(frames.reshape(*frames.shape[:2], LANDMARKS, 2))
        positions = resampled(points, batch["frame_mask"], self.steps, self.first_frame)
        chosen = tracks(positions, self.first_frame)[:, :, self.feature.astype(jnp.int32)]  # [B, T, R, 2]
        distances = dtw(jnp.swapaxes(chosen, 1, 2)[:, :, None], self.prototypes, self.window)
        aux = {"frame_features": frames, "features": positions.reshape(len(positions), -1), "maps": {}}
        return distances.reshape(len(distances), -1), aux

    def classify(self, features: Float[Array, "B D"]) -> Float[Array, "B C"]:
        """Returns the logits [B, C]; 0 for features that are not finite."""
        found = jnp.all(jnp.isfinite(features), axis=-1, keepdims=True)
        distances = jnp.where(found, features, 0.0).reshape(-1, *self.center.shape)
        if self.learner == "svc":
            logits = self.classifier(((distances - self.center) * self.scale).reshape(features.shape))
        else:  # sum_r alpha_r [h_r(x) = c]
            votes = jax.nn.one_hot(jnp.argmin(distances, axis=2), self.num_classes)
            logits = jnp.sum(self.alpha[:, None] * votes, axis=1)
        return jax.lax.stop_gradient(jnp.where(found, logits, 0.0))


def upright(points: Float[Array, "*B 68 2"]) -> Float[Array, "*B 68 2"]:
    """Returns faces whose eye centers lie at (-1/2, 0) and (1/2, 0)."""
    one, other = (jnp.mean(points[..., eye, :], axis=-2, keepdims=True) for eye in (EYE, OTHER_EYE))
    across, shape = other - one, points - (one + other) / 2
    turned = jnp.stack([jnp.sum(across * shape, axis=-1), cross(across, shape)], axis=-1)
    return turned / jnp.sum(across**2, axis=-1, keepdims=True)


def resampled(
    points: Float[Array, "B T 68 2"], mask: Bool[Array, "B T"], steps: int, first_frame: bool
) -> Float[Array, "B S 68 2"]:
    """Returns positions at `steps` equal steps from the first to the last frame with landmarks.

    NaN for clips with fewer than two frames with landmarks and, with `first_frame`, those whose first frame has none.
    """
    known = mask & jnp.all(jnp.isfinite(points), axis=(2, 3))
    known &= known[:, :1] | (not first_frame)
    first = jnp.argsort(~known, axis=1, stable=True)  # frames with landmarks, in their order, come first
    last = jnp.sum(known, axis=1, keepdims=True).astype(jnp.float32) - 1.0
    place = jnp.linspace(0.0, 1.0, steps) * jnp.maximum(last, 0.0)
    low = jnp.floor(place)
    high = jnp.minimum(low + 1.0, jnp.maximum(last, 0.0))

    def at(number: Float[Array, "B S"]) -> Float[Array, "B S 68 2"]:
        frame = jnp.take_along_axis(first, number.astype(jnp.int32), axis=1)
        return jnp.take_along_axis(points, frame[..., None, None], axis=1)

    share = (place - low)[..., None, None]
    return jnp.where((last >= 1.0)[..., None, None], (1 - share) * at(low) + share * at(high), jnp.nan)


def tracks(positions: Float[Array, "B S 68 2"], first_frame: bool) -> Float[Array, "B S F 2"]:
    """Returns the tracks of landmarks, q_t - q_1, and of pairs, (d_t - d_1, angle_t - angle_1), in this order.

    Angles are in radians, from -pi to pi. Without `first_frame` they are q_t and (d_t, angle_t).
    """
    apart = positions[:, :, SECOND] - positions[:, :, FIRST]
    start, direction = positions[:, :1], apart[:, :1]
    if not first_frame:
        start, direction = jnp.zeros_like(start), jnp.zeros_like(direction).at[..., 0].set(1.0)
    length = jnp.linalg.norm(apart, axis=-1)
    length = length - length[:, :1] if first_frame else length
    angle = jnp.arctan2(cross(direction, apart), jnp.sum(direction * apart, axis=-1))
    return jnp.concatenate([positions - start, jnp.stack([length, angle], axis=-1)], axis=2)


def dtw(x: Float[Array, "... T 2"], y: Float[Array, "... T 2"], window: int) -> Float[Array, ...]:
    """Returns the cost of the cheapest warping path between tracks: the sum of |x_i - y_j|, where |i - j| <= window."""
    shape = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = jnp.moveaxis(x, -2, 0), jnp.moveaxis(y, -2, 0)
    number, far = jnp.arange(len(x)), jnp.full((len(x), *shape), jnp.inf)

    def row(above: Array, entry: Any) -> tuple[Array, None]:
        i, x_i = entry
        corner = jnp.where(i == 0, 0.0, far[:1])
        diagonal = jnp.concatenate([corner, above[:-1]])

        def cell(left: Array, entry: Any) -> tuple[Array, Array]:
            j, y_j, straight, diagonal = entry
            best = jnp.minimum(left, jnp.minimum(straight, diagonal))
            cost = jnp.where(jnp.abs(i - j) <= window, jnp.linalg.norm(x_i - y_j, axis=-1) + best, jnp.inf)
            return cost, cost

        return jax.lax.scan(cell, far[0], (number, y, above, diagonal))[1], None

    return jax.lax.scan(row, far, (number, x))[0][-1]


def samme(
    predicted: Int[np.ndarray, "N F"], label: Int[np.ndarray, " N"], classes: int, rounds: int
) -> tuple[list[int], list[float]]:
    """Returns which weak classifiers F multi-class AdaBoost takes (Zhu et al., 2009), and their weights alpha.

    In each round the one with the smallest weighted error e is weighed by ln((1 - e) / e) + ln(C - 1). It ends with
    one that makes no error, and before one that is no better than chance.
    """
    wrong = (predicted != label[:, None]).astype(np.float32)
    weight, chosen, alpha = np.full(len(label), 1 / len(label), np.float32), [], []
    for _ in range(rounds):
        errors = weight @ wrong
        best = int(errors.argmin())
        if errors[best] >= 1 - 1 / classes:
            break
        error = max(float(errors[best]), SMALLEST_ERROR)
        chosen.append(best)
        alpha.append(float(np.log((1 - error) / error) + np.log(classes - 1)))
        weight *= np.exp(alpha[-1] * wrong[:, best])
        weight /= weight.sum()
        if errors[best] < SMALLEST_ERROR:
            break
    return chosen, alpha


def distances_from(
    positions: Float[np.ndarray, "N S 68 2"], prototypes: Float[np.ndarray, "C S F 2"], model: Model
) -> Float[np.ndarray, "N C F"]:
    """Returns the DTW distances of all features of clips from all prototypes."""
    theirs = jnp.swapaxes(jnp.asarray(prototypes), 1, 2)

    @jax.jit
    def of(some: Array) -> Array:
        return dtw(jnp.swapaxes(tracks(some, model.first_frame), 1, 2)[:, None], theirs, model.window)

    rows = np.resize(np.arange(len(positions)), (-(-len(positions) // AT_ONCE), AT_ONCE))
    return np.concatenate([np.asarray(of(positions[some])) for some in rows])[: len(positions)]


def fit(
    model: Model, features: Float[np.ndarray, "N P"], targets: Float[np.ndarray, "N C"], seed: int
) -> Mapping[str, np.ndarray]:
    """Returns all parameters, fitted to the resampled positions of those training clips that have landmarks.

    Raises:
        UserError: if no clip has any, if no feature is better than chance, or scikit-learn is not installed.
    """
    known = np.isfinite(features).all(axis=1)
    if unknown := int((~known).sum()):
        few = "fewer than two frames" + (", or not in the first one" if model.first_frame else "")
        print(f"{unknown} of {len(features)} training clips have landmarks in {few}: left out", flush=True)
    positions, label = features[known].reshape(-1, model.steps, LANDMARKS, 2), targets[known].argmax(axis=1)
    if len(np.unique(label)) < 2:
        raise UserError(
            f"the {len(label)} training clips with landmarks in two frames or more show fewer than two classes: give "
            "longer clips (one frame shows no movement), or run `python -m tfds_builders landmarks` for the data set"
        )
    prototypes = np.full((model.num_classes, model.steps, FEATURES, 2), NEVER, np.float32)
    for c in np.unique(label):
        prototypes[c] = median_tracks(positions[label == c], model.first_frame)
    distances = distances_from(positions, prototypes, model)
    chosen, alpha = samme(distances.argmin(axis=1), label, model.num_classes, model.rounds)
    if not chosen:
        raise UserError("no track of a landmark or a pair distinguishes the classes better than chance")
    found: dict[str, np.ndarray] = {name: np.zeros(model.rounds) for name in ("feature", "alpha")}
    found |= {name: np.zeros((model.rounds, model.num_classes)) for name in ("center", "scale")}
    found["prototypes"] = np.full((model.rounds, *prototypes.shape[:2], 2), NEVER)
    found["feature"][: len(chosen)], found["alpha"][: len(chosen)] = chosen, alpha
    found["prototypes"][: len(chosen)] = prototypes[:, :, chosen].transpose(2, 0, 1, 3)
    if model.learner == "boosting":
        return found
    x = np.zeros((len(label), model.rounds, model.num_classes), np.float32)
    x[:, : len(chosen)] = distances[:, :, chosen].transpose(0, 2, 1)
    spread, used = x.std(axis=0), np.zeros((model.rounds, model.num_classes), bool)
    used[np.ix_(np.unique(chosen, return_index=True)[1], np.unique(label))] = True
    found["center"], used = x.mean(axis=0), used & (spread > CONSTANT)
    found["scale"] = np.where(used, 1 / np.maximum(spread, CONSTANT), 0)
    x = ((x - found["center"]) * found["scale"]).reshape(len(x), -1).astype(np.float32)
    machine = learners.fit(model, x, label, seed)
    return found | {f"classifier/{name}": values for name, values in machine.items()}


def median_tracks(positions: Float[np.ndarray, "N S 68 2"], first_frame: bool) -> Float[np.ndarray, "S F 2"]:
    """Returns the prototype of a class: the median of its tracks at each step."""
    rows = np.array_split(positions, -(-len(positions) // AT_ONCE))
    return np.median(np.concatenate([np.asarray(tracks(jnp.asarray(some), first_frame)) for some in rows]), axis=0)


def check(config: Config) -> None:
    """Checks as for still images; warns if clips may not begin with the neutral face that `first_frame` assumes."""
    geometry.check(config)
    if config.model.first_frame and config.data.dataset.partition("/")[0] not in NEUTRAL_FIRST:
        say_once(
            "config.model.first_frame=True measures movements from the first frame of a clip; clips of "
            f"{config.data.dataset} may not begin with a neutral face: compare with False"
        )


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"cross_entropy": 1.0},
    check=check,
    fit=fit,
    takes="frames",
    published={},
    score=score,
)
