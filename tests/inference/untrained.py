"""Models with random weights, as if they had been trained."""

import dataclasses
import json

import jax
import numpy as np

from fer_jax import methods
from fer_jax.config.fields import Config
from fer_jax.evaluation.task import evaluation_task, model_input
from fer_jax.inference.trained import Trained
from fer_jax.labels import COMPOUND_EMOTIONS

CLASSES = ("anger", "happiness", "neutral")


def untrained(config: Config, side: int = 64) -> Trained:
    """A model with random weights, of gray pictures that are cropped as FER-2013's are; `side` in pixels."""
    method = methods.of(config)
    classes = COMPOUND_EMOTIONS[-3:] if config.method == "compound" else CLASSES
    fields = config.model.to_dict() | dict(method.model_fields(config, classes).fields)
    task = evaluation_task(config, len(classes), fields, False)
    card = {
        "method": config.method,
        "objective": config.objective,
        "classes": list(classes),
        "preprocessing": dataclasses.asdict(task.preprocessing),
        "data": {"name": "fer2013", "picture": [side, side, 1]},
        "crop": {},
        "config": json.loads(config.to_json()),
    }
    model = Trained(task.model, {}, classes, task.preprocessing, card, task)
    arrays = model.source_of(np.zeros((2, side, side, 1), np.uint8)).arrays
    if method.takes == "frames":
        arrays = {"frames": np.zeros((1, 2, side, side, 1), np.uint8), "frame_mask": np.ones((1, 2), bool)}
    shapes = jax.eval_shape(
        lambda key: task.model.init({"params": key}, model_input(task, dict(arrays), None), train=False),
        jax.random.key(0),
    )
    random = np.random.default_rng(0)

    def weights(shape):
        fan_in = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 1
        return (random.uniform(0.2, 0.8, shape.shape) * random.choice([-1, 1], shape.shape) / fan_in**0.5).astype("f")

    variables = jax.tree.map(weights, shapes)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    return dataclasses.replace(model, variables=variables)
