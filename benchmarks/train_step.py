"""Images per second of a whole ResNet-18 training step: ours, plain Flax, and PyTorch where it is installed.

    python -m benchmarks.train_step --sizes=48,112,224 --repeats=7

A step is forward, backward, Adam's update and the batch statistics' update, in float32, on the same seven-class
model. The contestants share one process and take turns (A B C A B C ...), so that a neighbour's load falls on all
alike; the medians of the turns are compared. Prints a table and appends one JSON object to
`benchmarks/results/train_step_<machine>.json` lines.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

THREADS = 2
BATCHES = {48: 128, 112: 32, 224: 16}  # images per step, as in docs/performance.md
CLASSES = 7
LEARNING_RATE = 1e-4

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax.nn.resnet import ResNet18

Step = Callable[[], float]  # runs one training step to its end and returns the loss


class Ours(nn.Module):
    """The baseline: fer_jax's ResNet-18 and a linear classifier."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        features, _ = ResNet18(name="trunk")(x, train=train)
        return nn.Dense(CLASSES, name="head")(features)


class PlainFlax(nn.Module):
    """The same network as a Flax user would write it: nn.Conv, nn.BatchNorm, nn.max_pool."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=3)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage in range(4):
            width = 64 * 2**stage
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(norm()(conv(width, (3, 3), (stride, stride), padding=1)(x)))
                y = norm()(conv(width, (3, 3), padding=1)(y))
                if x.shape != y.shape:
                    x = norm()(conv(width, (1, 1), (stride, stride), padding=0)(x))
                x = nn.relu(x + y)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


def make_jax_step(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> Step:
    """Compiles one training step of `model` and returns it with its state inside."""
    optimizer = optax.adam(LEARNING_RATE)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, images, labels):
        def loss_fn(params):
            logits, updates = model.apply(
                {"params": params, "batch_stats": state["stats"]}, images, train=True, mutable=["batch_stats"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updates["batch_stats"]

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"])
        updates, opt_state = optimizer.update(grads, state["opt"], state["params"])
        return {
            "params": optax.apply_updates(state["params"], updates),
            "stats": stats,
            "opt": opt_state,
        }, loss

    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images[:1])
    state = {
        "params": variables["params"],
        "stats": variables["batch_stats"],
        "opt": optimizer.init(variables["params"]),
    }
    x, y = jnp.asarray(images), jnp.asarray(labels)
    start = time.perf_counter()
    compiled = step.lower(state, x, y).compile()
    seconds = time.perf_counter() - start

    def run() -> float:
        nonlocal state
        state, loss = compiled(state, x, y)
        return float(loss)

    run.compile_seconds = seconds
    run.compiled = compiled
    return run


def make_torch_step(images: np.ndarray, labels: np.ndarray) -> Step:
    """The same step in PyTorch, channels last."""
    import torch
    from torch import nn as tnn
    from torch.nn import functional as F

    torch.set_num_threads(THREADS)

    class Block(tnn.Module):
        def __init__(self, channels: int, width: int, stride: int):
            super().__init__()
            self.conv1 = tnn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(width)
            self.conv2 = tnn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(width)
            self.shortcut = (
                tnn.Identity()
                if stride == 1 and channels == width
                else tnn.Sequential(
                    tnn.Conv2d(channels, width, 1, stride, bias=False), tnn.BatchNorm2d(width)
                )
            )

        def forward(self, x):
            y = F.relu(self.bn1(self.conv1(x)), inplace=True)
            return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)

    blocks = [
        Block(max(64, width // 2) if first else width, width, 2 if first and width > 64 else 1)
        for width in (64, 128, 256, 512)
        for first in (True, False)
    ]
    model = tnn.Sequential(
        tnn.Conv2d(3, 64, 7, 2, 3, bias=False),
        tnn.BatchNorm2d(64),
        tnn.ReLU(inplace=True),
        tnn.MaxPool2d(3, 2, 1),
        *blocks,
        tnn.AdaptiveAvgPool2d(1),
        tnn.Flatten(),
        tnn.Linear(512, CLASSES),
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)  # a channels-last view of NHWC memory
    y = torch.from_numpy(labels).long()
    model.train()

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return run
