"""Classifiers that scikit-learn fits and JAX evaluates: plain arrays, in shapes that the fields of a model decide.

Each learner has a module, which maps x [B, K] to logits [B, C], and a function that fits its parameters to x [N, K] and
label [N]. Rows beyond what was fitted are 0 and change nothing. A class without examples is never preferred to another.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from fer_jax.errors import UserError
from fer_jax.nn.linear import Linear, full_matmul

LEARNERS = ("svc", "boosting", "logistic")
ABSENT = -30.0  # bias of a class without examples
Fitted = dict[str, np.ndarray]
zeros = nn.initializers.zeros_init()


def scikit_learn(part: str) -> Any:
    """Returns a module of scikit-learn, such as 'svm'.

    Raises:
        UserError: if scikit-learn is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{part}")
    except ImportError as error:
        raise UserError("fitting this method needs scikit-learn: pip install 'fer_jax[geometry]'") from error


class KernelMachine(nn.Module):
    """Support vectors of each pair of classes: d_ij(x) = sum_s w_ijs exp(-gamma |x - s|^2) + b_ij, above 0 for class i.

    The logit of a class is the number of its pairs that it wins, plus the sum of its d, squashed to less than 1/3: the
    order in which scikit-learn's SVC(break_ties=True) prefers classes. Their softmax is no calibrated probability.

    Attributes:
        num_classes: C.
        support: rows S of `vectors`.
    """

    num_classes: int
    support: int

    @nn.compact
    def __call__(self, x: Float[Array, "B K"]) -> Float[Array, "B C"]:
        pairs = np.array([*itertools.combinations(range(self.num_classes), 2)])
        vectors = self.param("vectors", zeros, (self.support, x.shape[-1]))
        weights = self.param("weights", zeros, (len(pairs), self.support))
        bias = self.param("bias", zeros, (len(pairs),))
        gamma = self.param("gamma", zeros, ())
        squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(vectors**2, axis=1)
        kernel = jnp.exp(-gamma * jnp.maximum(squares - 2.0 * full_matmul(x, vectors.T), 0.0))
        d = full_matmul(kernel, weights.T) + bias
        first, second = (jnp.asarray(np.eye(self.num_classes, dtype=np.float32)[pairs[:, side]]) for side in (0, 1))
        wins = full_matmul((d >= 0).astype(jnp.float32), first) + full_matmul((d < 0).astype(jnp.float32), second)
        total = full_matmul(d, first - second)
        return wins + total / (3.0 * (jnp.abs(total) + 1.0))


def fit_svc(
    x: Float[np.ndarray, "N K"], label: Int[np.ndarray, " N"], *, classes: int, cost: float, support: int, seed: int
) -> Fitted:
    """Fits a `KernelMachine`: C = `cost`, gamma = 1 / (K var(x)), classes weighed alike.

    Of more than `support` examples it learns from as many, drawn by `seed`, at least one of each class.

    Raises:
        UserError: if `support` is less than the number of classes.
    """
    if len(x) > support:
        rows = np.random.default_rng(seed).permutation(len(x))
        first = rows[np.unique(label[rows], return_index=True)[1]]  # of each class one
        if support < len(first):
            raise UserError(f"config.model.support={support}: there are {len(first)} classes; give at least as many")
        print(f"the support vector machine is trained on {support:,} of {len(x):,} examples", flush=True)
        rows = np.append(first, rows[~np.isin(rows, first)])[:support]
        x, label = x[rows], label[rows]
    gamma = 1 / (x.shape[1] * x.var())
    found = scikit_learn("svm").SVC(C=cost, gamma=gamma, class_weight="balanced", cache_size=500).fit(x, label)
    # With two classes scikit-learn's d is above 0 for the second one.
    sign = -1 if len(found.classes_) == 2 else 1
    dual, intercept, owner = sign * found.dual_coef_, sign * found.intercept_, label[found.support_]
    pairs = [*itertools.combinations(range(classes), 2)]
    there = np.isin(np.arange(classes), found.classes_)
    bias = np.array([float(there[i]) - float(there[j]) for i, j in pairs])
    vectors, weights = np.zeros((support, x.shape[1])), np.zeros((len(pairs), support))
    vectors[: len(owner)] = x[found.support_]
    for number, (a, b) in enumerate(itertools.combinations(range(len(found.classes_)), 2)):
        i, j = found.classes_[[a, b]].tolist()
        row = pairs.index((i, j))
        bias[row] = intercept[number]
        # A support vector has a weight against each other class, in their order.
        weights[row, : len(owner)] = np.where(owner == i, dual[b - 1], np.where(owner == j, dual[a], 0))
    return {"vectors": vectors, "weights": weights, "bias": bias, "gamma": np.array(gamma)}


class BoostedTrees(nn.Module):
    """SAMME (Zhu et al., 2009): the logit of class c is sum_r alpha_r [h_r(x) = c], h_r a tree of depth two.

    Attributes:
        num_classes: C.
        rounds: R.
    """

    num_classes: int
    rounds: int

    @nn.compact
    def __call__(self, x: Float[Array, "B K"]) -> Float[Array, "B C"]:
        alpha = self.param("alpha", zeros, (self.rounds,))
        # Whole numbers are stored as float32, like every parameter. A tree: its root, then left and right below it.
        feature = self.param("feature", zeros, (self.rounds, 3)).astype(jnp.int32)
        threshold = self.param("threshold", zeros, (self.rounds, 3))
        leaves = self.param("leaves", zeros, (self.rounds, 4)).astype(jnp.int32)  # classes, from left to right
        right = x[:, feature] > threshold  # [B, R, 3]
        leaf = jnp.where(right[..., 0], 2 + right[..., 2].astype(jnp.int32), right[..., 1].astype(jnp.int32))
        chosen = jnp.take_along_axis(leaves[None], leaf[..., None], axis=2)[..., 0]  # [B, R]
        return jnp.sum(alpha[:, None] * jax.nn.one_hot(chosen, self.num_classes), axis=1)


def fit_boosting(x: Float[np.ndarray, "N K"], label: Int[np.ndarray, " N"], *, rounds: int, seed: int) -> Fitted:
    """Fits `BoostedTrees`; it ends before `rounds` where a tree makes no error, or is no better than chance.

    Raises:
        UserError: if the first tree is no better than chance.
    """
    tree = scikit_learn("tree").DecisionTreeClassifier(max_depth=2)
    boosting = scikit_learn("ensemble").AdaBoostClassifier(tree, n_estimators=rounds, random_state=seed)
    try:
        boosting.fit(x, label)
    except ValueError as error:
        raise UserError(
            f"no tree on the landmarks of {len(x)} training examples is better than chance: check the data, "
            "or set config.model.learner=svc"
        ) from error
    found = {"alpha": np.zeros(rounds), "feature": np.zeros((rounds, 3)), "threshold": np.zeros((rounds, 3))}
    found["leaves"] = np.zeros((rounds, 4))
    found["alpha"][: len(boosting.estimators_)] = boosting.estimator_weights_[: len(boosting.estimators_)]
    for row, one in enumerate(boosting.estimators_):
        nodes, children = one.tree_, np.stack([one.tree_.children_left, one.tree_.children_right])
        children = np.where(children >= 0, children, np.arange(nodes.node_count))  # a leaf stands for both of its own
        below = children[:, 0]
        ends, inner = children[:, below].T.ravel(), [0, *below]
        found["feature"][row] = np.maximum(nodes.feature[inner], 0)
        found["threshold"][row] = at_most(nodes.threshold[inner])
        found["leaves"][row] = one.classes_[nodes.value[ends, 0].argmax(axis=1)]
    return found


def at_most(values: np.ndarray) -> np.ndarray:
    """Returns the largest float32 values that are not above `values`: what is compared with them is float32."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def fit_logistic(x: Float[np.ndarray, "N K"], label: Int[np.ndarray, " N"], *, classes: int, cost: float) -> Fitted:
    """Fits a `Linear` layer: multinomial logistic regression with L2 / (2 `cost`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it need not converge to the last digit
        found = scikit_learn("linear_model").LogisticRegression(C=cost, max_iter=500).fit(x, label)
    slope, intercept = found.coef_, found.intercept_
    if len(found.classes_) == 2:
        slope, intercept = np.concatenate([-slope, slope]) / 2, np.concatenate([-intercept, intercept]) / 2
    kernel, bias = np.zeros((x.shape[1], classes)), np.full(classes, ABSENT)
    kernel[:, found.classes_], bias[found.classes_] = slope.T, intercept
    return {"kernel": kernel, "bias": bias}


def build(model: Any) -> nn.Module:
    """Returns the module of `model.learner`, one of LEARNERS."""
    if model.learner == "svc":
        return KernelMachine(model.num_classes, model.support)
    return BoostedTrees(model.num_classes, model.rounds) if model.learner == "boosting" else Linear(model.num_classes)


def fit(model: Any, x: Float[np.ndarray, "N K"], label: Int[np.ndarray, " N"], seed: int) -> Fitted:
    """Returns the parameters of the module of `model.learner`.

    Raises:
        UserError: if the examples have only one class, or are all identical.
    """
    if len(np.unique(label)) < 2:
        raise UserError(f"the {len(label)} training examples with landmarks have fewer than two classes: give more")
    if not np.ptp(x, axis=0).any():
        raise UserError(f"the landmarks of all {len(x)} training examples are identical: find them again")
    if model.learner == "svc":
        return fit_svc(x, label, classes=model.num_classes, cost=model.cost, support=model.support, seed=seed)
    if model.learner == "boosting":
        return fit_boosting(x, label, rounds=model.rounds, seed=seed)
    return fit_logistic(x, label, classes=model.num_classes, cost=model.cost)
