"""Milliseconds of each ResNet-18 convolution, each pass: XLA's convolution, a sum of taps, and Winograd's form.

    python -m benchmarks.convolution --sizes=48,112,224 --repeats=7

The rule in `fer_jax.nn.convolution.choose_lowering` comes from this table; a star marks the form that it chooses. The
forms take turns and the medians are compared. Rates are in GFLOP/s of the definition (Winograd's form takes fewer
operations), for the starred form and for one matrix product of the same size. Prints Markdown; --out writes it to a
file.
"""

from __future__ import annotations

import argparse
import functools
import platform
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.flax_resnet import CPU_BATCHES
from benchmarks.machine import cores, our_options, prepare
from benchmarks.records import check_file, one_line, positive, several, user_path
from benchmarks.turns import markdown, medians, take_turns
from fer_jax.errors import writing
from fer_jax.nn.convolution import (
    Lowering,
    choose_lowering,
    conv_taps,
    conv_xla,
    input_gradient_taps,
    kernel_gradient_taps,
    output_map,
)
from fer_jax.nn.winograd import conv_winograd, input_gradient_winograd, kernel_gradient_winograd

Shape = tuple[int, int, int, int, int]  # input side, C, F, kernel side, stride


def halved(side: int) -> int:
    """Returns the side of the map after a stride of two."""
    return (side + 1) // 2


def resnet18_shapes(size: int) -> list[Shape]:
    """Returns the distinct convolutions of ResNet-18 with the 7x7 stem on `size` pixels."""
    side = halved(halved(size))  # after the stem and the max-pool
    shapes: list[Shape] = [(size, 3, 64, 7, 2), (side, 64, 64, 3, 1)]
    for channels in (64, 128, 256):
        shapes += [(side, channels, 2 * channels, 3, 2), (side, channels, 2 * channels, 1, 2)]
        side = halved(side)
        shapes.append((side, 2 * channels, 2 * channels, 3, 1))
    return shapes


def passes(shape: Shape, batch: int) -> dict[str, tuple[dict[str, Callable], tuple[jax.Array, ...]]]:
    """Returns for each pass its forms by name, and their operands."""
    side, channels, features, k, stride = shape
    padding = ((k // 2, k // 2), (k // 2, k // 2))
    rng = np.random.default_rng(0)

    def normal(*dims: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(dims, dtype=np.float32))

    x, kernel = normal(batch, side, side, channels), normal(k, k, channels, features)
    dy = normal(batch, *output_map(x.shape, kernel.shape, stride, padding), features)
    conv = functools.partial(conv_xla, stride=stride, padding=padding)
    forms: dict[str, tuple[dict[str, Callable], tuple[jax.Array, ...]]] = {
        "output": (
            {"xla": conv, "taps": functools.partial(conv_taps, stride=stride, padding=padding)},
            (x, kernel),
        ),
        "input_gradient": (
            {
                "xla": lambda dy, kernel: jax.linear_transpose(lambda x: conv(x, kernel), x)(dy)[0],
                "taps": lambda dy, kernel: input_gradient_taps(dy, kernel, x.shape, stride, padding),
            },
            (dy, kernel),
        ),
        "kernel_gradient": (
            {
                "xla": lambda x, dy: jax.linear_transpose(lambda k: conv(x, k), kernel)(dy)[0],
                "taps": lambda x, dy: kernel_gradient_taps(x, dy, kernel.shape, stride, padding),
            },
            (x, dy),
        ),
    }
    if (k, stride) == (3, 1):
        forms["output"][0]["winograd"] = functools.partial(conv_winograd, padding=padding)
        forms["input_gradient"][0]["winograd"] = functools.partial(input_gradient_winograd, padding=padding)
        forms["kernel_gradient"][0]["winograd"] = functools.partial(kernel_gradient_winograd, padding=padding)
    return forms


def measure(forms: dict[str, Callable], operands: tuple[jax.Array, ...], repeats: int) -> dict[str, float]:
    """Returns the median milliseconds of each form, measured in turns."""
    options = our_options()
    compiled = {n: jax.jit(f).lower(*operands).compile(options) for n, f in forms.items()}  # pyright: ignore
    turns = {name: functools.partial(run, *operands) for name, run in compiled.items()}
    return {name: 1e3 * seconds for name, seconds in medians(take_turns(turns, repeats)).items()}


def product_rate(rows: int, inner: int, columns: int, repeats: int) -> float:
    """Returns GFLOP/s of one product [rows, inner] @ [inner, columns]: the limit of the output pass without copies."""
    a, b = jnp.ones((rows, inner)), jnp.ones((inner, columns))
    return 2e-6 * rows * inner * columns / measure({"product": jnp.matmul}, (a, b), repeats)["product"]


def table(sizes: Sequence[int], repeats: int) -> str:
    """Returns the measurements as a Markdown table."""
    head = (
        f"jax {jax.__version__}, {platform.machine()}, {cores()} threads, float32. Milliseconds as XLA's convolution\n"
        "/ as taps / in Winograd's form; a star marks the form that the rule chooses. Rates in GFLOP/s: of the output\n"
        "pass in the starred form, and of one matrix product of the same size.\n\n"
    )
    rows = []
    for size in sizes:
        batch = CPU_BATCHES[size]
        for shape in resnet18_shapes(size):
            side, channels, features, k, stride = shape
            out_side = halved(side) if stride == 2 else side
            rule = choose_lowering((k, k, channels, features), (out_side, out_side), stride, jnp.float32)
            gflop = 2e-9 * batch * out_side**2 * k * k * channels * features
            product = product_rate(batch * out_side**2, k * k * channels, features, repeats)
            cells, rate = [], 0.0
            for name, (forms, operands) in passes(shape, batch).items():
                if name == "input_gradient" and channels == 3:
                    cells.append("not needed")
                    continue
                taken, found = getattr(rule, name), measure(forms, operands, repeats)
                cells.append(" / ".join(f"{ms:.1f}{'*' * (form == taken)}" for form, ms in found.items()))
                if name == "output":
                    rate = 1e3 * gflop / found[taken]
            what = [f"{size}, {batch}", f"{side}x{side}, {channels} -> {features}, {k}x{k}/{stride}", f"{gflop:.2f}"]
            rows.append([*what, f"{rate:.0f}, {product:.0f}", *cells])
            print(" | ".join(rows[-1]), flush=True)
    columns = ["input, batch", "input map, C -> F, kernel/stride", "GFLOP", "output, product", *Lowering._fields]
    return head + markdown(columns, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = tuple(CPU_BATCHES)
    parser.add_argument("--sizes", type=several(known), default=known, help="input sizes (default %(default)s)")
    parser.add_argument("--repeats", type=positive(int), default=7, help="turns per form (default %(default)s)")
    parser.add_argument("--out", type=user_path, help="markdown file to write")
    args = parser.parse_args(arguments)
    with one_line():
        if args.out:
            check_file(args.out)
        prepare()
        text = table(args.sizes, args.repeats)
        print(text)
        if args.out:
            with writing(args.out):
                args.out.write_text(text)


if __name__ == "__main__":
    main()
