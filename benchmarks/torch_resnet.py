"""ResNet-18 in PyTorch, in each variant that makes it fast; fer_jax is compared with the best of them.

Channels last throughout. On a CPU eager (oneDNN) and with torch.compile; predictions also frozen and fused by
TorchScript. On a GPU under autocast to bfloat16 with cuDNN's search: eager, compiled, as CUDA graphs and autotuned,
with the fused Adam; predictions by a network whose weights are bfloat16.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.flax_resnet import CLASSES, LEARNING_RATE
from benchmarks.machine import accelerated, cores

EAGER = "PyTorch"
COMPILED = "PyTorch, compiled"
FROZEN = "PyTorch, frozen"
MODES = {"PyTorch, CUDA graphs": "reduce-overhead", "PyTorch, autotuned": "max-autotune"}  # of torch.compile


def ways(kind: str, batch: int) -> list[str]:
    """Returns PyTorch's variants for 'training', 'prediction' or 'evaluation' in batches of `batch` images."""
    if accelerated():
        return [EAGER, COMPILED, *MODES]
    if kind == "training":
        return [EAGER, COMPILED]
    # Compiling takes half a minute for every size of a single image.
    return [EAGER, FROZEN] if batch == 1 else [EAGER, COMPILED, FROZEN]


def setup_torch() -> Any:
    """Sets PyTorch's threads; returns the device: the first GPU if its build can use one, else the CPU."""
    import torch

    torch.set_num_threads(cores())
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network() -> Any:
    """Returns the module, channels last."""
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


def trainer(way: str, images: np.ndarray, labels: np.ndarray, steps: int) -> Callable[[], float]:
    """Returns a turn of `steps` training steps, which returns the last loss when the device is done."""
    import torch
    from torch.nn import functional

    device = setup_torch()
    gpu = device.type == "cuda"
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)  # NHWC memory seen as NCHW: channels last
    y = torch.from_numpy(labels).long().to(device)

    model = network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=gpu or None)
    predict = model if way == EAGER else torch.compile(model, **_options(way))

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


def predictor(way: str, images: np.ndarray, steps: int) -> Callable[[], None]:
    """Returns a turn of `steps` predictions of all images."""
    import torch

    device = setup_torch()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device, _precision(device))

    predict = _inference(way, x, device)

    def turn() -> None:
        with torch.inference_mode():
            for _ in range(steps):
                predict(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return turn


def evaluator(way: str, pictures: np.ndarray, batch: int) -> Callable[[], np.ndarray]:
    """Returns a turn that scores a split of uint8 images [N, H, W, 3] in host memory and returns the logits.

    Batches are sent, normalized and predicted as `fer_jax.evaluation.evaluate` does; N is a multiple of `batch`.
    """
    import torch

    device = setup_torch()
    dtype = _precision(device)
    rows = torch.from_numpy(pictures)

    def sent(first: int) -> Any:
        x = rows[first : first + batch].to(device, non_blocking=True).permute(0, 3, 1, 2)
        return ((x.to(torch.float32) / 255.0 - 0.5) / 0.5).to(dtype, memory_format=torch.channels_last)

    predict = _inference(way, sent(0), device)

    def turn() -> np.ndarray:
        with torch.inference_mode():
            logits = [predict(sent(first)).float() for first in range(0, len(rows), batch)]
            return torch.cat(logits).cpu().numpy()

    return turn


def _precision(device: Any) -> Any:
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _inference(way: str, example: Any, device: Any) -> Any:
    """Returns a network that predicts batches like `example`, in one of the variants."""
    import torch

    model = network().eval().to(device, _precision(device))
    if way == EAGER:
        return model
    if way == FROZEN:
        with torch.inference_mode():
            traced = torch.jit.trace(model, example)
            return torch.jit.optimize_for_inference(torch.jit.freeze(traced))  # pyright: ignore
    # With constant weights the batch norms are folded into the convolutions.
    options: dict[str, Any] = {"options": {"freezing": True}} if device.type == "cpu" else _options(way)
    return torch.compile(model, **options)


def _options(way: str) -> dict[str, Any]:
    """Returns the options of `torch.compile`."""
    return {"mode": MODES[way]} if way in MODES else {}
