"""Algorithms of label distribution learning (Geng, IEEE TKDE 2016) on the features of a trained network.

    python -m experiments.claims.ldl --model=runs/ldl/synthetic --out results/ldl_synthetic.json

Maximum entropy, p = softmax(theta x), by a quasi-Newton method (SA-BFGS, the best of the paper); AA-kNN, the mean of
the neighbors' distributions; AA-BP, a perceptron with one hidden layer, a softmax and squared errors. Beside them the
network itself and, as the least that is possible, the mean distribution of the training split. All of them learn from
the votes of the model's training split and are scored on its test split: accuracy and the six measures.
AA-kNN needs scikit-learn: pip install 'fer_jax[verify]'.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from fer_jax.config.protocol import part_to_test, split_to_test
from fer_jax.data.sources.source import Source
from fer_jax.data.sources.source import load as load_split
from fer_jax.errors import UserError, print_any_text, writing
from fer_jax.evaluation.metrics import measures_to_votes
from fer_jax.inference.trained import load
from fer_jax.runs.workdir import write_json

Features = Float[np.ndarray, "N P"]
Distributions = Float[np.ndarray, "N C"]
STEPS = 300  # at most, of a quasi-Newton method
FLOOR = 1e-8  # of a probability whose logarithm is taken


def maximum_entropy(x: Features, d: Distributions, test: Features, penalty: float = 1e-3) -> Distributions:
    """Returns softmax(theta x) of `test`; theta minimizes the mean KL(d || p) + penalty / 2 |theta|^2."""
    x, test = (np.concatenate([part, np.ones((len(part), 1))], axis=1) for part in (x, test))
    shape = x.shape[1], d.shape[1]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(shape)
        log_p = log_softmax(x @ theta, axis=1)
        slope = x.T @ (np.exp(log_p) - d) / len(x) + penalty * theta
        return float(-(d * log_p).sum() / len(x) + penalty / 2 * (theta**2).sum()), slope.ravel()

    found = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return softmax(test @ found.x.reshape(shape), axis=1)


def nearest_neighbors(x: Features, d: Distributions, test: Features, k: int = 5) -> Distributions:
    """AA-kNN: returns the mean of the distributions of the k nearest training examples."""
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError as error:
        raise UserError("AA-kNN needs scikit-learn: pip install 'fer_jax[verify]'") from error
    return d[NearestNeighbors(n_neighbors=min(k, len(x))).fit(x).kneighbors(test, return_distance=False)].mean(axis=1)


def back_propagation(
    x: Features, d: Distributions, test: Features, hidden: int = 60, penalty: float = 1e-4, seed: int = 0
) -> Distributions:
    """AA-BP: returns the softmax of a perceptron that minimizes the mean of sum_k (d_k - p_k)^2."""
    rng = np.random.default_rng(seed)
    sizes = ((x.shape[1], hidden), (hidden, d.shape[1]))
    first = [rng.normal(size=size) / np.sqrt(size[0]) for size in sizes] + [np.zeros(size[1]) for size in sizes]
    start, unravel = jax.flatten_util.ravel_pytree([jnp.asarray(part, jnp.float32) for part in first])

    def predict(flat: jax.Array, inputs: jax.Array) -> jax.Array:
        into, out, into_bias, out_bias = unravel(flat)
        return jax.nn.softmax(jnp.tanh(inputs @ into + into_bias) @ out + out_bias)

    inputs, wanted = jnp.asarray(x, jnp.float32), jnp.asarray(d, jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def objective(flat: jax.Array) -> jax.Array:
        errors = jnp.sum((predict(flat, inputs) - wanted) ** 2, axis=1)
        return jnp.mean(errors) + penalty / 2 * jnp.sum(flat**2)

    def in_double(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = objective(jnp.asarray(flat, jnp.float32))
        return float(value), np.asarray(slope, np.float64)

    found = minimize(in_double, np.asarray(start), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(predict(jnp.asarray(found.x, jnp.float32), jnp.asarray(test, jnp.float32)), np.float64)


def mean_distribution(x: Features, d: Distributions, test: Features) -> Distributions:
    """Returns the mean of the training distributions, whatever the features are."""
    return np.repeat(d.mean(axis=0, keepdims=True), len(test), axis=0)


ALGORITHMS: dict[str, Callable[..., Distributions]] = {
    "mean distribution": mean_distribution,
    "maximum entropy": maximum_entropy,
    "AA-kNN": nearest_neighbors,
    "AA-BP": back_propagation,
}


def scores(p: Distributions, d: Distributions, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and the six measures of predictions p against votes d."""
    p = np.maximum(p, FLOOR) / np.maximum(p, FLOOR).sum(axis=1, keepdims=True)
    means = {name: float(values.mean()) for name, values in measures_to_votes(d, np.log(p)).items()}
    return {"accuracy": float((p.argmax(axis=1) == labels).mean()), **means}


def measure(path: str) -> dict[str, Any]:
    """Returns the scores of the network at `path` and of all algorithms on its features."""
    model = load(path)
    data, name = model.config.data, model.card["method"]
    train = _with_votes(load_split(data, data.train_split, training=True))
    test = _with_votes(part_to_test(model.config, load_split(data, split_to_test(model.config), training=False)))
    outputs = [model.outputs(part, ("features",)) for part in (train, test)]
    if any("features" not in output for output in outputs):
        raise UserError(f"--model={path}: {name} names none of its intermediates 'features': give another model")
    x, seen = (output["features"].reshape(len(output["features"]), -1).astype(np.float64) for output in outputs)
    middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, seen = (x - middle) / spread, (seen - middle) / spread
    d, truth, labels = train.arrays["vote_target"], test.arrays["vote_target"], test.arrays["label"]
    found = {f"{name}, the network itself": scores(softmax(outputs[1]["logits"], axis=1), truth, labels)}
    found |= {title: scores(algorithm(x, d, seen), truth, labels) for title, algorithm in ALGORITHMS.items()}
    facts = {"model": epath.Path(path).name, "dataset": test.name, "split": test.split}
    return facts | {"training_examples": len(train), "num_examples": len(test), "scores": found}


def _with_votes(source: Source) -> Source:
    """Returns the examples that somebody voted on."""
    if "vote_target" not in source.arrays:
        raise UserError(f"--model: {source.name}, which it was trained on, has no votes: give a model of FER+")
    return source.select(np.flatnonzero(source.arrays["vote_target"].sum(axis=1) > 0))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a run, or a model file, of a data set with votes")
    parser.add_argument("--out", required=True, help="JSON file to write")
    args = parser.parse_args(arguments)
    print_any_text()
    try:
        found = measure(args.model)
        target = epath.Path(args.out)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, found)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
