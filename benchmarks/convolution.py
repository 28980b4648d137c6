"""Milliseconds of each convolution of ResNet-18, VGG-16 and the compact network, each pass, in every form.

    python -m benchmarks.convolution --networks=resnet18 --sizes=48,112,224 --out FILE.json

Forms: XLA's convolution as it compiles it by default, by Eigen (the options of fer_jax's step) and by oneDNN; and in
these options a sum of taps, Winograd's form, and patches times a matrix. A star marks what the rule
`fer_jax.nn.convolution.choose_lowering`, which comes from these tables, takes. The forms take turns and the medians are
compared. The last line of a table has the seconds that compiling each form took in all. Writes FILE.json, and the table
beside it.
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from benchmarks.flax_resnet import CPU_BATCHES
from benchmarks.records import check_file, one_line, positive, several, user_path, write_file
from benchmarks.turns import markdown, medians, take_turns
from fer_jax.engine.compiler import CPU_STEP, Options
from fer_jax.nn.convolution import (
    Lowering,
    choose_lowering,
    conv_patches,
    conv_taps,
    conv_xla,
    input_gradient_taps,
    kernel_gradient_taps,
    output_map,
)
from fer_jax.nn.vgg import STAGES
from fer_jax.nn.winograd import conv_winograd, input_gradient_winograd, kernel_gradient_winograd

Shape = tuple[int, int, int, int, int]  # input side, C, F, kernel side, stride
Forms = dict[str, tuple[Callable, Options]]
ONEDNN: Options = CPU_STEP | {"xla_cpu_experimental_onednn_custom_call": True}
XLA: dict[str, Options] = {"default": {}, "xla": CPU_STEP, "onednn": ONEDNN}  # xla: as the rule names it


def halved(side: int) -> int:
    """Returns the side of the map after a stride of two."""
    return (side + 1) // 2


def resnet18(size: int) -> list[Shape]:
    """Returns the distinct convolutions of ResNet-18 with the 7x7 stem on `size` pixels."""
    side = halved(halved(size))  # after the stem and the max-pool
    shapes: list[Shape] = [(size, 3, 64, 7, 2), (side, 64, 64, 3, 1)]
    for channels in (64, 128, 256):
        shapes += [(side, channels, 2 * channels, 3, 2), (side, channels, 2 * channels, 1, 2)]
        side = halved(side)
        shapes.append((side, 2 * channels, 2 * channels, 3, 1))
    return shapes


def vgg16(size: int) -> list[Shape]:
    """Returns the distinct convolutions of VGG-16."""
    shapes: list[Shape] = []
    channels, side = 3, size
    for width, count in STAGES:
        shapes += [(side, channels, width, 3, 1), *([(side, width, width, 3, 1)] if count > 1 else [])]
        channels, side = width, side // 2
    return shapes


def compact(size: int) -> list[Shape]:
    """Returns the convolutions of experiments/fer2013_fast.py, without the stem."""
    shapes: list[Shape] = []
    channels, side = 32, size // 2
    for width in (48, 96, 192):
        shapes += [(side, channels, width, 3, 1), (side // 2, width, width, 3, 1)]
        channels, side = width, side // 2
    return shapes


NETWORKS = {"resnet18": resnet18, "vgg16": vgg16, "compact": compact}


def passes(shape: Shape, batch: int) -> Iterator[tuple[str, Forms, tuple[jax.Array, ...]]]:
    """Yields each pass with its forms by name, and their operands."""
    side, channels, features, k, stride = shape
    padding = ((k // 2, k // 2), (k // 2, k // 2))
    rng = np.random.default_rng(0)

    def normal(*dims: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(dims, dtype=np.float32))

    x, kernel = normal(batch, side, side, channels), normal(k, k, channels, features)
    dy = normal(batch, *output_map(x.shape, kernel.shape, stride, padding), features)
    conv, patches = (functools.partial(form, stride=stride, padding=padding) for form in (conv_xla, conv_patches))
    winograd = (k, stride) == (3, 1)

    def forms(of: Callable[[Callable], Callable], taps: Callable, own: Callable) -> Forms:
        """`of` makes the pass out of a convolution; taps and Winograd's form have their own."""
        found: Forms = {name: (of(conv), options) for name, options in XLA.items()}
        found |= {"taps": (taps, CPU_STEP), "patches": (of(patches), CPU_STEP)}
        return found | ({"winograd": (functools.partial(own, padding=padding), CPU_STEP)} if winograd else {})

    both = functools.partial(conv_taps, stride=stride, padding=padding)
    yield "output", forms(lambda form: form, both, conv_winograd), (x, kernel)
    if channels > 3:
        yield (
            "input_gradient",
            forms(
                lambda form: lambda dy, kernel: jax.linear_transpose(lambda x: form(x, kernel), x)(dy)[0],
                lambda dy, kernel: input_gradient_taps(dy, kernel, x.shape, stride, padding),
                input_gradient_winograd,
            ),
            (dy, kernel),
        )
    yield (
        "kernel_gradient",
        forms(
            lambda form: lambda x, dy: jax.linear_transpose(lambda k: form(x, k), kernel)(dy)[0],
            lambda x, dy: kernel_gradient_taps(x, dy, kernel.shape, stride, padding),
            kernel_gradient_winograd,
        ),
        (x, dy),
    )


def measure(forms: Forms, operands: tuple[jax.Array, ...], repeats: int) -> dict[str, tuple[float, float]]:
    """Returns the median milliseconds of each form, measured in turns, and the seconds to compile it."""
    runs, compiling = {}, {}
    for name, (form, options) in forms.items():
        began = time.perf_counter()
        try:
            compiled = jax.jit(form).lower(*operands).compile(options)  # pyright: ignore
        except jax.errors.JaxRuntimeError:  # this jaxlib does not know an option
            continue
        compiling[name] = time.perf_counter() - began
        runs[name] = functools.partial(compiled, *operands)
    return {name: (1e3 * seconds, compiling[name]) for name, seconds in medians(take_turns(runs, repeats)).items()}


def product_rate(rows: int, inner: int, columns: int, repeats: int) -> float:
    """Returns GFLOP/s of one product [rows, inner] @ [inner, columns]: the limit of the output pass without copies."""
    forms: Forms = {"product": (jnp.matmul, CPU_STEP)}
    milliseconds, _ = measure(forms, (jnp.ones((rows, inner)), jnp.ones((inner, columns))), repeats)["product"]
    return 2e-6 * rows * inner * columns / milliseconds


def layer(shape: Shape, batch: int, repeats: int) -> dict[str, Any]:
    """Returns the measurements of one convolution."""
    side, channels, features, k, stride = shape
    out_side = halved(side) if stride == 2 else side
    rule = choose_lowering((k, k, channels, features), (out_side, out_side), stride, jnp.float32)
    found = {name: measure(forms, operands, repeats) for name, forms, operands in passes(shape, batch)}
    return {
        "batch": batch,
        "shape": shape,
        "gflop": 2e-9 * batch * out_side**2 * k * k * channels * features,
        "product_gflops": product_rate(batch * out_side**2, k * k * channels, features, repeats),
        "rule": rule._asdict(),
        "milliseconds": {name: {form: ms for form, (ms, _) in forms.items()} for name, forms in found.items()},
        "compile_seconds": {name: {form: s for form, (_, s) in forms.items()} for name, forms in found.items()},
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the measurements as a Markdown table."""
    forms = (*XLA, "taps", "patches", "winograd")
    compiling: collections.Counter[str] = collections.Counter()
    lines = []
    for row in rows:
        side, channels, features, k, stride = row["shape"]
        cells = []
        for name in Lowering._fields:
            found, taken = row["milliseconds"].get(name, {}), row["rule"][name]
            cells.append(" / ".join(f"{found[f]:.1f}{'*' * (f == taken)}" if f in found else "-" for f in forms))
            compiling.update(row["compile_seconds"].get(name, {}))
        what = [f"{side}x{side}, {channels} to {features}, {k}x{k}/{stride}, {row['batch']}"]
        lines.append([*what, f"{row['gflop']:.1f}", f"{row['product_gflops']:.0f}", *cells])
    text = " / ".join(f"{compiling[form]:.0f}" for form in forms)
    columns = ["map, channels, kernel/stride, batch", "GFLOP", "product, GFLOP/s", *Lowering._fields]
    lines.append(["compiling, seconds", "", "", text, "", ""])
    return f"Milliseconds: {' / '.join(forms)}.\n\n" + markdown(columns, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = tuple(CPU_BATCHES)
    names = tuple(NETWORKS)
    parser.add_argument("--networks", type=several(names), default=names, help="(default %(default)s)")
    parser.add_argument("--sizes", type=several(known), default=known, help="input sizes (default %(default)s)")
    parser.add_argument("--repeats", type=positive(int), default=7, help="turns per form (default %(default)s)")
    parser.add_argument("--out", type=user_path, required=True, help="file of the record, .json")
    args = parser.parse_args(arguments)
    with one_line():
        check_file(args.out, ".md")
        machine.prepare()
        measured: dict[tuple[int, Shape], dict[str, Any]] = {}
        for size, network in itertools.product(args.sizes, args.networks):
            for shape in NETWORKS[network](size):
                key = CPU_BATCHES[size], shape
                measured[key] = measured.get(key) or layer(shape, key[0], args.repeats)
                rows = list(measured.values())
                write_file(args.out, machine.describe() | {"rows": rows}, table(rows))
    print(args.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
