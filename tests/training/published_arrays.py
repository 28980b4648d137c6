"""Weights under published names with random values, without PyTorch: what the files of the authors look like."""

import numpy as np

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def _layer(arrays, name, shape, rng, bias=False):
    arrays[f"{name}.weight"] = rng.normal(0, 0.1, shape).astype(np.float32)
    if bias:
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)


def _norm(arrays, name, channels, rng):
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        arrays[f"{name}.{leaf}"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)
    arrays[f"{name}.num_batches_tracked"] = np.array(9)


def resnet(depth=10, width=8, classes=1000, prefix="", seed=0):
    """torchvision's ResNet."""
    arrays, rng, channels = {}, np.random.default_rng(seed), width
    _layer(arrays, "conv1", (width, 3, 7, 7), rng)
    _norm(arrays, "bn1", width, rng)
    for stage, count in enumerate(BLOCKS[depth]):
        for number in range(count):
            name, out = f"layer{stage + 1}.{number}", width * 2**stage
            kernels = [(out, 1), (out, 3), (4 * out, 1)] if depth == 50 else [(out, 3), (out, 3)]
            inputs = channels
            for i, (features, side) in enumerate(kernels, 1):
                _layer(arrays, f"{name}.conv{i}", (features, inputs, side, side), rng)
                _norm(arrays, f"{name}.bn{i}", features, rng)
                inputs = features
            if number == 0 and (stage or inputs != channels):
                _layer(arrays, f"{name}.downsample.0", (inputs, channels, 1, 1), rng)
                _norm(arrays, f"{name}.downsample.1", inputs, rng)
            channels = inputs
    _layer(arrays, "fc", (classes, channels), rng, bias=True)
    return {prefix + name: array for name, array in arrays.items()}


def vgg(norm=True, width=8, seed=0, stages=(2, 2, 3, 3, 3)):
    """torchvision's VGG-16 (or, with other stages, another VGG), its linear layers narrowed to 16."""
    arrays, rng, channels, index = {}, np.random.default_rng(seed), 3, 0
    for stage, count in enumerate(stages):
        for _ in range(count):
            features = min(2**stage, 8) * width
            _layer(arrays, f"features.{index}", (features, channels, 3, 3), rng, bias=True)
            if norm:
                _norm(arrays, f"features.{index + 1}", features, rng)
            channels, index = features, index + 2 + norm
        index += 1
    for number, shape in ((0, (16, 49 * channels)), (3, (16, 16)), (6, (1000, 16))):
        _layer(arrays, f"classifier.{number}", shape, rng, bias=True)
    return arrays


def edsr(blocks=2, width=8, seed=0):
    """The authors' EDSR x2."""
    arrays, rng = {}, np.random.default_rng(seed)
    for name in ("sub_mean", "add_mean"):
        _layer(arrays, name, (3, 3, 1, 1), rng, bias=True)
    _layer(arrays, "head.0", (width, 3, 3, 3), rng, bias=True)
    for block in range(blocks):
        for number in (0, 2):
            _layer(arrays, f"body.{block}.body.{number}", (width, width, 3, 3), rng, bias=True)
    _layer(arrays, f"body.{blocks}", (width, width, 3, 3), rng, bias=True)
    _layer(arrays, "tail.0.0", (4 * width, width, 3, 3), rng, bias=True)
    _layer(arrays, "tail.1", (3, width, 3, 3), rng, bias=True)
    return arrays
