"""Images per second of a whole ResNet-18 training step: ours, plain Flax, and PyTorch where it is installed.

    python -m benchmarks.train_step --sizes=48,112,224 --repeats=7

A step is forward, backward, Adam's update and the update of the batch statistics, in float32 on two threads, of the
same seven-class network on the same images. The contestants share one process and take turns (A B C A B C ...), so
that a neighbour's load falls on all alike; the medians of the turns are compared. Prints a table and appends the
measurements to a JSON file under benchmarks/results/, with the table beside it.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax.nn.resnet import ResNet18
from fer_jax.training.allocator import keep_freed_memory
from fer_jax.training.compiler import Options, step_options
from fer_jax.training.sharding import make_mesh

THREADS = 2
BATCHES = {48: 128, 112: 32, 224: 16}  # images per step
CLASSES = 7
LEARNING_RATE = 1e-4
PLAIN_TURNS = 2  # plain Flax takes seconds per step at 48 pixels: its turns are few

Step = Callable[[], float]  # runs one training step to its end and returns the loss


def prepare() -> None:
    """Two threads, and memory that stays with the process; to be called before the first computation."""
    if hasattr(os, "sched_setaffinity"):  # both frameworks size their thread pools by it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    keep_freed_memory()
    jax.config.update("jax_platforms", "cpu")


def our_options() -> Options:
    """The compiler options of fer_jax's training step."""
    return step_options(make_mesh("cpu", 1))


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
        return nn.Dense(CLASSES)(x.mean((1, 2)))


def make_jax_step(model: nn.Module, images: np.ndarray, labels: np.ndarray, options: Options) -> tuple[Step, float]:
    """Compiles a training step of `model`. Returns it, with its state inside, and the seconds of compilation."""
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

    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images[:1])
    state = {**variables, "optimizer": optimizer.init(variables["params"])}
    x, y = jnp.asarray(images), jnp.asarray(labels)
    start = time.perf_counter()
    compiled = update.lower(state, x, y).compile(options)  # pyright: ignore
    seconds = time.perf_counter() - start

    def step() -> float:
        nonlocal state
        state, loss = compiled(state, x, y)
        return float(loss)

    return step, seconds


def make_torch_step(images: np.ndarray, labels: np.ndarray, compiled: bool = False) -> Step:
    """The same step in PyTorch, channels last, eagerly or through torch.compile."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(THREADS)

    class Block(torch.nn.Module):
        def __init__(self, channels: int, width: int, stride: int):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(width)
            self.conv2 = torch.nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = torch.nn.BatchNorm2d(width)
            self.shortcut = torch.nn.Sequential()
            if stride > 1 or channels != width:
                self.shortcut.append(torch.nn.Conv2d(channels, width, 1, stride, bias=False))
                self.shortcut.append(torch.nn.BatchNorm2d(width))

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
            return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)

    widths = (64, 128, 256, 512)
    blocks = [
        block
        for i, width in enumerate(widths)
        for block in (Block(widths[max(i - 1, 0)], width, 2 if i else 1), Block(width, width, 1))
    ]
    network = torch.nn.Sequential(  # pyright: ignore
        torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        torch.nn.BatchNorm2d(64),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(3, 2, 1),
        *blocks,
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(512, CLASSES),
    ).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    predict = torch.compile(network) if compiled else network
    x = torch.from_numpy(images).permute(0, 3, 1, 2)  # NHWC memory seen as NCHW: channels last
    y = torch.from_numpy(labels).long()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(predict(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def take_turns(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Times one step of each contestant per round, after a round that warms up. Returns the seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            if name == "plain Flax" and turn > PLAIN_TURNS:
                continue
            start = time.perf_counter()
            loss = step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            if not np.isfinite(loss):
                raise FloatingPointError(f"{name} lost its mind at turn {turn}")
    return seconds


def measure(size: int, repeats: int, with_torch: bool, torch_compile: bool) -> dict[str, Any]:
    """One row of the table: every contestant on `size` pixels."""
    batch = BATCHES[size]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, size, size, 3), dtype=np.float32)
    labels = rng.integers(0, CLASSES, batch).astype(np.int32)
    steps: dict[str, Step] = {}
    steps["fer_jax"], compile_seconds = make_jax_step(Ours(), images, labels, our_options())
    steps["plain Flax"], plain_compile_seconds = make_jax_step(PlainFlax(), images, labels, None)
    if with_torch:
        steps["PyTorch"] = make_torch_step(images, labels)
        if torch_compile:
            steps["torch.compile"] = make_torch_step(images, labels, compiled=True)
    seconds = take_turns(steps, repeats)
    return {
        "size": size,
        "batch": batch,
        "compile_seconds": {"fer_jax": compile_seconds, "plain Flax": plain_compile_seconds},
        "milliseconds": {k: [round(1e3 * s, 1) for s in v] for k, v in seconds.items()},
        "images_per_second": {k: batch / statistics.median(v) for k, v in seconds.items()},
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown: images per second and what they are relative to ours."""
    others = [name for name in rows[0]["images_per_second"] if name != "fer_jax"]
    head = ["input, batch", "fer_jax", *others, *(f"fer_jax / {name}" for name in others), "compile, s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        speed = row["images_per_second"]
        cells = [f"{row['size']}x{row['size']}, {row['batch']}", f"{speed['fer_jax']:.1f}"]
        cells += [f"{speed[name]:.1f}" for name in others]
        cells += [f"{speed['fer_jax'] / speed[name]:.2f}" for name in others]
        cells.append(f"{row['compile_seconds']['fer_jax']:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def versions() -> dict[str, str]:
    """What the numbers depend on besides this code."""
    found = {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__}
    if importlib.util.find_spec("torch"):
        import torch

        found["torch"] = torch.__version__
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="48,112,224", help=f"input sizes, of {sorted(BATCHES)}")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to append to")
    parser.add_argument("--torch_compile", action="store_true", help="also time torch.compile (needs a compiler)")
    args = parser.parse_args()

    prepare()
    with_torch = importlib.util.find_spec("torch") is not None
    rows = []
    for size in (int(s) for s in args.sizes.split(",")):
        rows.append(measure(size, args.repeats, with_torch, args.torch_compile))
        print(as_table(rows[-1:]), flush=True)

    out = args.out or pathlib.Path(__file__).parent / "results" / "train_step.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(out.read_text()) if out.exists() else []
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    runs.append({"when": when, "threads": THREADS, "versions": versions(), "rows": rows})
    out.write_text(json.dumps(runs, indent=1) + "\n")
    named = ", ".join(f"{k} {v}" for k, v in versions().items())
    out.with_suffix(".md").write_text(
        f"Training steps, images per second ({named}; {THREADS} threads, float32).\n\n{as_table(rows)}"
    )
    print(as_table(rows))


if __name__ == "__main__":
    main()
