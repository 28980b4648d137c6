"""ResNet-18 of fer_jax and as a Flax user would write it, with the compiled steps that are timed."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.machine import accelerated
from fer_jax.engine.compiler import Options, once_options
from fer_jax.engine.mesh import make_mesh, replicated, sharded
from fer_jax.engine.prediction import Prediction
from fer_jax.nn.resnet import ResNet18

CPU_BATCHES = {48: 128, 112: 32, 224: 16}  # images per step
ACCELERATOR_BATCHES = {48: 1024, 112: 512, 224: 256}
CLASSES = 7
LEARNING_RATE = 1e-4


def batches() -> dict[int, int]:
    """Returns the images per step, by side in pixels."""
    return ACCELERATOR_BATCHES if accelerated() else CPU_BATCHES


def examples(size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images float32 [B, H, W, 3] and labels int32 [B], the same for every contestant."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, size, size, 3), dtype=np.float32)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)


class Ours(nn.Module):
    """The baseline: fer_jax's ResNet-18 and a linear classifier in float32."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        features, _ = ResNet18(dtype=self.dtype, name="trunk")(x.astype(self.dtype), train=train)
        return nn.Dense(CLASSES, name="head")(features.astype(jnp.float32))


class PlainFlax(nn.Module):
    """The same network as a Flax user would write it: nn.Conv, nn.BatchNorm, nn.max_pool."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype
        )
        x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=3)(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore
        for stage in range(4):
            width = 64 * 2**stage
            for block in range(2):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(norm()(conv(width, (3, 3), (stride, stride), padding=1)(x)))
                y = norm()(conv(width, (3, 3), padding=1)(y))
                if x.shape != y.shape:
                    x = norm()(conv(width, (1, 1), (stride, stride), padding=0)(x))
                x = nn.relu(x + y)
        return nn.Dense(CLASSES)(x.mean((1, 2)).astype(jnp.float32))


class Compiled:
    """A compiled step on fixed arguments.

    Attributes:
        program: the executable.
        seconds: of its compilation.
        function, arguments: what was compiled.
    """

    def __init__(self, function: Any, arguments: tuple[Any, ...], options: Options):
        self.function, self.arguments = function, arguments
        began = time.perf_counter()
        self.program = function.lower(*arguments).compile(options)
        self.seconds = time.perf_counter() - began


def training(model: nn.Module, images: np.ndarray, labels: np.ndarray, options: Options) -> Compiled:
    """Compiles a training step of `model`: (state, images, labels) -> (state, loss), the state donated."""
    optimizer = optax.adam(LEARNING_RATE)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: dict[str, Any], images: jax.Array, labels: jax.Array):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": state["batch_stats"]}
            logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, updated["batch_stats"]

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state["params"])
        updates, moments = optimizer.update(grads, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "batch_stats": stats, "optimizer": moments}, loss

    variables = initial(model, images)
    state = {**variables, "optimizer": optimizer.init(variables["params"])}
    return Compiled(update, (state, jnp.asarray(images), jnp.asarray(labels)), options)


def inference(model: nn.Module, images: np.ndarray) -> Compiled:
    """Compiles `model` as `--mode=evaluate` does: (what the weights alone gave, images) -> logits."""
    mesh = make_mesh("auto", 1)
    whole, examples = replicated(mesh), jnp.asarray(images)
    apply = functools.partial(model.apply, train=False)
    written = Prediction(mesh, apply, in_shardings=(whole, sharded(mesh)), out_shardings=whole)
    weights, predict = written.prepared(initial(model, images), examples)
    return Compiled(predict, (weights, examples), None)  # the program has its options


def plain_inference(model: nn.Module, images: np.ndarray) -> Compiled:
    """Compiles `model` in the plain way: (variables, images) -> logits."""
    predict = jax.jit(functools.partial(model.apply, train=False))
    return Compiled(predict, (initial(model, images), jnp.asarray(images)), None)


def initial(model: nn.Module, images: np.ndarray) -> Any:
    """Returns the variables of step 0."""
    options = once_options(make_mesh("auto", 1))  # optimizing it would take longer than all the steps
    draw = jax.jit(functools.partial(model.init, train=False), compiler_options=options)
    return draw(jax.random.key(0), images[:1])


def trainer(compiled: Compiled, steps: int) -> Callable[[], float]:
    """Returns a turn of `steps` training steps, which returns the last loss."""
    state, *rest = compiled.arguments
    compiled.arguments = ()  # the state is donated and must not be read again

    def turn() -> float:
        nonlocal state
        loss = None
        for _ in range(steps):
            state, loss = compiled.program(state, *rest)
        jax.block_until_ready(state)
        return float(loss)  # pyright: ignore[reportArgumentType]

    return turn


def predictor(compiled: Compiled, steps: int) -> Callable[[], jax.Array]:
    """Returns a turn of `steps` predictions."""

    def turn() -> jax.Array:
        logits = None
        for _ in range(steps):
            logits = compiled.program(*compiled.arguments)
        return jax.block_until_ready(logits)  # pyright: ignore

    return turn
