"""How near each step is to the machine's own limits: measured time over the least time that the machine allows.

    python -m benchmarks.roofline
    python -m benchmarks.roofline --methods=baseline,acnn

For the training step of each method, and for the baseline's evaluation, as experiments/METHOD.py:synthetic has them
(on an accelerator with full width and 512 images a step):

- operations: multiplications and additions of matrix products and convolutions, counted on the traced program
  (`counting.py`), without multiplications by padding, so that they do not depend on how a backend writes a convolution.
  XLA's own count of the compiled program stands beside it; it cannot look into library calls.
- bytes: the fewest that the step can move. What the compiled program is given is read once, what it returns is written
  once, and what autodiff keeps between forward and backward is written and read once. Everything else might stay in
  registers and caches.
- ceilings: a large matrix product in the compute type, and a large copy, measured here.

The floor is the larger of operations over the one and bytes over the other ceiling; `times` is measured over floor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import counting, harness, machine
from benchmarks.flax_resnet import Compiled
from benchmarks.records import command_line
from benchmarks.turns import markdown, medians, take_turns
from fer_jax.engine.compiler import step_options
from fer_jax.engine.mesh import replicated, sharded
from fer_jax.engine.prediction import Prediction
from fer_jax.evaluation.task import eval_step
from fer_jax.training.setup import Setup, make_setup
from fer_jax.training.step import dry_loss, train_step

CPU_SIDES = {"product": 2048, "copy": 1 << 26}  # of a square matrix, and elements of a float32 vector
ACCELERATOR_SIDES = {"product": 8192, "copy": 1 << 28}
QUICK_SIDES = {"product": 256, "copy": 1 << 20}


def ceilings(quick: bool, repeats: int = 7) -> dict[str, float]:
    """Operations per second of a matrix product and bytes per second of a copy, at their best."""
    sides = QUICK_SIDES if quick else ACCELERATOR_SIDES if machine.accelerated() else CPU_SIDES
    square = jnp.ones((sides["product"],) * 2, machine.compute_type())
    long = jnp.ones(sides["copy"], jnp.float32)
    times = 10 if machine.accelerated() else 1  # one after the other, so that the launch does not count
    product = Compiled(jax.jit(jnp.matmul), (square, square), machine.our_options()).program
    copy = Compiled(jax.jit(lambda x: x + 1.0), (long,), machine.our_options()).program
    turns = {
        "product": lambda: [product(square, square) for _ in range(times)],
        "copy": lambda: [copy(long) for _ in range(times)],
    }
    best = {name: min(seconds) / times for name, seconds in take_turns(turns, repeats).items()}
    return {
        "operations_per_second": 2.0 * sides["product"] ** 3 / best["product"],
        "bytes_per_second": 2.0 * long.nbytes / best["copy"],
    }


def training_row(setup: Setup, repeats: int) -> dict[str, Any]:
    """The training step of a method, as `Feed` runs it once the rows are gathered."""
    config = setup.config
    batch, state = harness.first_batch(setup), setup.init()
    step = functools.partial(
        train_step,
        setup.task,
        setup.tx,
        setup.schedule,
        accumulate=config.train.accumulate,
        ema_decay=config.train.ema_decay,
    )

    def loss(params: Any) -> jax.Array:
        return dry_loss(setup.task, state.replace(params=params), batch)

    with counting.as_on_accelerators():
        counted, kept = counting.work(step, state, batch), counting.kept_bytes(loss, state.params)
    program = Compiled(jax.jit(step, donate_argnums=0), (state, batch), step_options(setup.mesh)).program
    carried = state

    def turn() -> jax.Array:
        nonlocal carried
        for _ in range(_steps()):
            carried, metrics = program(carried, batch)
        return metrics["loss/total"]

    return _row(config.method, "training", setup, counted, 2 * kept, program, turn, repeats)


def evaluation_row(setup: Setup, repeats: int) -> dict[str, Any]:
    """The evaluation of a batch."""
    batch, variables = harness.first_batch(setup), setup.init().variables()
    step = functools.partial(eval_step, setup.task)
    with counting.as_on_accelerators():
        counted = counting.work(step, variables, batch)
    whole = replicated(setup.mesh)
    predict = Prediction(setup.mesh, step, in_shardings=(whole, sharded(setup.mesh)), out_shardings=whole)
    weights, compiled = predict.prepared(variables, batch)
    program = compiled.lower(weights, batch).compile()

    def turn() -> Any:
        return [program(weights, batch) for _ in range(_steps())]

    return _row(setup.config.method, "evaluation", setup, counted, 0, program, turn, repeats)


def _steps() -> int:
    return 20 if machine.accelerated() else 1


def _row(
    method: str,
    kind: str,
    setup: Setup,
    counted: counting.Work,
    kept: int,
    program: Any,
    turn: Callable[[], Any],
    repeats: int,
) -> dict[str, Any]:
    memory, cost = program.memory_analysis(), program.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    passed = memory.argument_size_in_bytes + memory.output_size_in_bytes if memory else 0
    return {
        "method": method,
        "kind": kind,
        "images": setup.images_per_step,
        "size": setup.task.image_size,
        "operations": counted.operations,
        "operations_with_padding": counted.padded,
        "not_counted": list(counted.opaque),
        "bytes": passed + kept,
        "bytes_kept": kept,
        "xla_operations": float(cost.get("flops", 0.0)),
        "xla_bytes": float(cost.get("bytes accessed", 0.0)),
        "seconds": medians(take_turns({method: turn}, repeats))[method] / _steps(),
    }


def with_floor(row: dict[str, Any], limits: dict[str, float]) -> dict[str, Any]:
    """Adds the least seconds, what sets them, and the measured time over them."""
    computing = row["operations"] / limits["operations_per_second"]
    moving = row["bytes"] / limits["bytes_per_second"]
    floor = max(computing, moving)
    bound = "operations" if computing >= moving else "bytes"
    return row | {"floor_seconds": floor, "bound": bound, "times": row["seconds"] / floor}


def section(quick: bool = False, methods: tuple[str, ...] = harness.METHODS, repeats: int = 5) -> dict[str, Any]:
    """What `python -m benchmarks` stores: the ceilings, and a row for each step."""
    limits = ceilings(quick)
    rows = []
    with harness.faces_folder() as folder:
        for method in methods[: 1 if quick else None]:
            config = harness.make_config(method, folder)
            if quick:
                config.model.width, config.train.batch_size = 8, 16
                config.model.update({"depth": 10} if "depth" in config.model else {})
            setup = make_setup(config)
            rows.append(training_row(setup, 1 if quick else repeats))
            if method == "baseline" and not quick:
                rows.append(evaluation_row(setup, repeats))
    return {"ceilings": limits, "rows": [with_floor(row, limits) for row in rows]}


def as_table(result: dict[str, Any]) -> str:
    """The ceilings in a sentence, and the rows as markdown."""
    limits = result["ceilings"]
    head = ["step", "input, images", "GFLOP", "XLA's count", "MB", "kept, MB", "floor, ms", "set by", "ms", "times"]
    cells = []
    for row in result["rows"]:
        blind = "+" if row["not_counted"] else ""
        cells.append(
            [
                f"{row['method']}, {row['kind']}",
                f"{row['size']}x{row['size']}, {row['images']}",
                f"{1e-9 * row['operations']:.1f}{blind}",
                f"{1e-9 * row['xla_operations']:.1f}",
                f"{1e-6 * row['bytes']:.0f}",
                f"{1e-6 * row['bytes_kept']:.0f}",
                f"{1e3 * row['floor_seconds']:.3g}",
                row["bound"],
                f"{1e3 * row['seconds']:.3g}",
                f"{row['times']:.1f}",
            ]
        )
    product, copy = 1e-9 * limits["operations_per_second"], 1e-9 * limits["bytes_per_second"]
    text = (
        f"Ceilings: {product:,.0f} GFLOP/s in a matrix product ({machine.compute_type()}), {copy:,.1f} GB/s in a copy."
    )
    return f"{text}\n\n{markdown(head, cells)}"


if __name__ == "__main__":
    command_line("roofline", __doc__, section, as_table, methods=harness.METHODS, repeats=5)
