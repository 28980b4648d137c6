"""Milliseconds of a training step of ACNN's 24 unshared PG-Units: batched, against a loop of 24 small networks.

    python -m benchmarks.patch_units --repeats=7

A step is forward and backward, to the parameters and to the patches. The forms are the same function:

- batched: what ACNN uses, one unit under `vmap`, its convolutions written as patches times a matrix;
- loop, products: 24 units one after the other, their convolutions written like that too;
- loop, convolutions: 24 units one after the other with `fer_jax.nn.convolution`'s own choice;
- vmap, convolutions: one unit under `vmap` as it stands, which makes grouped convolutions.

They share one process and take turns; the medians are compared. Writes benchmarks/results/patch_units.json and .md.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks.machine import cores, our_options, prepare, versions
from benchmarks.records import check_file, one_line, positive, write_file
from benchmarks.turns import markdown, medians, take_turns
from fer_jax.methods.acnn import POINTS, Gate, PGUnit, PGUnits

SHAPES = ((32, 3, 64), (64, 6, 32), (128, 6, 16), (256, 6, 8))  # channels, cells along a side, images
SLOW_TURNS = 2  # the grouped form takes seconds: its turns are few
SLOW = "vmap, convolutions"
Step = Callable[[], Any]


class Loop(nn.Module):
    """24 units, each a module of its own."""

    unit: Callable[..., PGUnit]

    @nn.compact
    def __call__(self, patches: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        outs = [self.unit(name=f"unit{i}")(patches[:, i], train) for i in range(POINTS)]
        return jnp.stack([psi for psi, _ in outs], axis=1), jnp.stack([alpha for _, alpha in outs], axis=1)


def forms(channels: int) -> dict[str, nn.Module]:
    """The four ways to compute the same units."""
    fields = {"channels": channels, "features": 64, "gate": functools.partial(Gate, channels // 4, 64)}
    return {
        "batched": PGUnits(**fields),
        "loop, products": Loop(functools.partial(PGUnit, **fields)),
        "loop, convolutions": Loop(functools.partial(PGUnit, **fields, as_product=False)),
        SLOW: PGUnits(**fields, as_product=False),
    }


def make_step(model: nn.Module, patches: jax.Array) -> tuple[Step, float]:
    """Compiles forward and backward of `model`. Returns it with the seconds of compilation."""
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, False))(patches)

    def objective(params: Any, patches: jax.Array) -> tuple[jax.Array, Any]:
        stats = {"params": params, "batch_stats": variables["batch_stats"]}
        outputs: Any = model.apply(stats, patches, True, mutable=["batch_stats"])
        (psi, alpha), updated = outputs
        return jnp.sum((alpha[..., None] * psi) ** 2), updated

    step = jax.jit(jax.grad(objective, argnums=(0, 1), has_aux=True))
    began = time.perf_counter()
    compiled = step.lower(variables["params"], patches).compile(our_options())  # pyright: ignore
    return functools.partial(compiled, variables["params"], patches), time.perf_counter() - began


def measure(channels: int, side: int, batch: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    rng = np.random.default_rng(0)
    patches = jnp.asarray(rng.standard_normal((batch, POINTS, side, side, channels), dtype=np.float32))
    made = {name: make_step(model, patches) for name, model in forms(channels).items()}
    seconds = take_turns({name: step for name, (step, _) in made.items()}, repeats, {SLOW: min(SLOW_TURNS, repeats)})
    return {
        "channels": channels,
        "side": side,
        "batch": batch,
        "milliseconds": {name: round(1e3 * s, 1) for name, s in medians(seconds).items()},
        "compile_seconds": {name: round(compiling, 1) for name, (_, compiling) in made.items()},
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown."""
    names = list(rows[0]["milliseconds"])
    cells_of = []
    for row in rows:
        cells = [f"{row['milliseconds'][name]:.1f}" for name in names]
        compiling = f"{row['compile_seconds']['batched']:.1f} / {row['compile_seconds']['loop, convolutions']:.1f}"
        what = f"24 of {row['side']}x{row['side']}, {row['channels']}, {row['batch']}"
        cells_of.append([what, *cells, compiling])
    return markdown(["patches, channels, images", *names, "compile: batched / loop, s"], cells_of)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=positive(int), default=7, help="turns (default %(default)s)")
    some = {"choices": range(1, len(SHAPES) + 1), "default": len(SHAPES)}
    parser.add_argument("--rows", type=int, help="how many of the shapes, the smallest first", **some)
    default = pathlib.Path(__file__).parent / "results" / "patch_units.json"
    parser.add_argument("--out", type=pathlib.Path, default=default, help="JSON file to write, with a table beside it")
    args = parser.parse_args(arguments)
    with one_line():
        check_file(args.out, ".md")
        prepare()
        rows = []
        for shape in SHAPES[: args.rows]:
            rows.append(measure(*shape, args.repeats))
            print(as_table(rows[-1:]), flush=True)
        named = ", ".join(f"{name} {version}" for name, version in versions().items())
        head = f"Training step of 24 PG-Units, milliseconds ({named}; {cores()} threads, float32).\n\n"
        write_file(args.out, {"threads": cores(), "versions": versions(), "rows": rows}, head + as_table(rows))


if __name__ == "__main__":
    main()
