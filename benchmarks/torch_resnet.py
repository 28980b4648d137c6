"""ResNet-18 in PyTorch, in each of the ways that make it fast: the best of them is what fer_jax is compared with.

Channels last throughout. On a CPU eagerly (oneDNN) and through torch.compile; predictions also frozen and fused by
TorchScript. On a GPU under autocast to bfloat16 with cuDNN's own search, eagerly, compiled, as CUDA graphs and
autotuned, with the fused Adam; predictions by a network whose weights are bfloat16.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.flax_resnet import CLASSES, LEARNING_RATE
from benchmarks.machine import cores
from fer_jax.errors import first_line

EAGER = "PyTorch"
COMPILED = "PyTorch, compiled"
FROZEN = "PyTorch, frozen"
MODES = {"PyTorch, CUDA graphs": "reduce-overhead", "PyTorch, autotuned": "max-autotune"}  # of torch.compile
Build = Callable[[], Callable[[], Any]]


def setup_torch() -> Any:
    """Tells PyTorch what it may use. Returns the device: the first GPU, if its build can use one, else the CPU."""
    import torch

    torch.set_num_threads(cores())
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network() -> Any:
    """The module, channels last."""
    import torch
    from torch.nn import functional

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
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        torch.nn.BatchNorm2d(64),
        torch.nn.ReLU(inplace=True),
        torch.nn.MaxPool2d(3, 2, 1),
        *blocks,
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(512, CLASSES),
    ).to(memory_format=torch.channels_last)  # pyright: ignore


def trainers(images: np.ndarray, labels: np.ndarray, steps: int) -> dict[str, Build]:
    """Each way to train: a function that builds it and returns a turn of `steps` steps, which returns the last loss.

    The turn ends when the device is done.
    """
    import torch
    from torch.nn import functional

    device = setup_torch()
    gpu = device.type == "cuda"
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)  # NHWC memory seen as NCHW: channels last
    y = torch.from_numpy(labels).long().to(device)

    def build(compiled: Mapping[str, Any] | None) -> Callable[[], float]:
        model = network().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=gpu or None)
        predict = model if compiled is None else torch.compile(model, **compiled)

        def turn() -> float:
            loss = None
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cuda", torch.bfloat16) if gpu else contextlib.nullcontext():
                    logits = predict(x)
                loss = functional.cross_entropy(logits.float(), y)
                loss.backward()
                optimizer.step()
            if gpu:
                torch.cuda.synchronize()
            return float(loss.detach())  # pyright: ignore

        return turn

    return _variants(build, gpu)


def predictors(images: np.ndarray, steps: int) -> dict[str, Build]:
    """Each way to predict: a function that builds it and returns a turn of `steps` predictions of all images."""
    import torch

    device = setup_torch()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device, _precision(device))

    def turn_of(predict: Any) -> Callable[[], None]:
        def turn() -> None:
            with torch.inference_mode():
                for _ in range(steps):
                    predict(x)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return turn

    ways = _inference(x, device)
    if len(images) == 1 and device.type == "cpu":
        del ways[COMPILED]  # half a minute of compilation for every size of a single image
    return {name: lambda make=make: turn_of(make()) for name, make in ways.items()}


def evaluators(pictures: np.ndarray, batch: int) -> dict[str, Build]:
    """Each way to score a split of uint8 pictures [N, H, W, 3] in the host's memory; the logits come back as an array.

    Batches are sent, normalised and predicted, as `fer_jax.evaluation.evaluate` does; N is a multiple of `batch`.
    """
    import torch

    device = setup_torch()
    dtype = _precision(device)
    rows = torch.from_numpy(pictures)

    def sent(first: int) -> Any:
        x = rows[first : first + batch].to(device, non_blocking=True).permute(0, 3, 1, 2)
        return ((x.to(torch.float32) / 255.0 - 0.5) / 0.5).to(dtype, memory_format=torch.channels_last)

    def turn_of(predict: Any) -> Callable[[], np.ndarray]:
        def turn() -> np.ndarray:
            with torch.inference_mode():
                logits = [predict(sent(first)).float() for first in range(0, len(rows), batch)]
                return torch.cat(logits).cpu().numpy()

        return turn

    return {name: lambda make=make: turn_of(make()) for name, make in _inference(sent(0), device).items()}


def _precision(device: Any) -> Any:
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _inference(example: Any, device: Any) -> dict[str, Build]:
    """Each way to make a network that predicts batches like `example`."""
    import torch

    gpu = device.type == "cuda"
    fresh = network().eval().to(device, _precision(device))

    def build(compiled: Mapping[str, Any] | None) -> Any:
        if compiled == {} and not gpu:
            compiled = {"options": {"freezing": True}}  # weights are constants: batch norms go into the convolutions
        model = copy.deepcopy(fresh)
        return model if compiled is None else torch.compile(model, **compiled)

    def frozen() -> Any:
        with torch.inference_mode():
            traced = torch.jit.trace(copy.deepcopy(fresh), example)
            return torch.jit.optimize_for_inference(torch.jit.freeze(traced))  # pyright: ignore

    return _variants(build, gpu) | ({} if gpu else {FROZEN: frozen})


def _variants(build: Callable[[Mapping[str, Any] | None], Any], gpu: bool) -> dict[str, Build]:
    builds: dict[str, Build] = {EAGER: lambda: build(None), COMPILED: lambda: build({})}
    if gpu:
        builds |= {name: lambda mode=mode: build({"mode": mode}) for name, mode in MODES.items()}
    return builds


def that_work(ways: Callable[[], Mapping[str, Build]]) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Builds each of the ways that `ways()` names and runs it once, which compiles it.

    Returns:
        The turns of those that work, and for the others why they do not (no C++ compiler, too little memory, or a
        PyTorch that cannot live in one process with this JAX).
    """
    turns, failed = {}, {}
    try:
        builds = ways()
    except Exception as error:
        return {}, {EAGER: first_line(error)}
    for name, make in builds.items():
        try:
            turn = make()
            turn()
        except Exception as error:  # whatever a compiler may say: the other ways go on
            failed[name] = first_line(error)
        else:
            turns[name] = turn
    return turns, failed
