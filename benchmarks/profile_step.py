"""The costliest operations of the ResNet-18 step, from XLA's profile of the compiled program.

    python -m benchmarks.profile_step 48
    python -m benchmarks.profile_step 224 --inference --top=40

An operation's time is its share of the wall time: at every moment the operations in flight share it equally, so that
the shares add up to at most one. `idle` is the rest: dispatch, and threads that wait for one another. --network=plain
profiles the network as a Flax user would write it.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import flax_resnet, machine
from benchmarks.records import positive
from benchmarks.turns import markdown, medians, take_turns

CONTAINERS = frozenset({"while", "call", "conditional"})  # their time is that of the operations inside
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) (?P<opcode>[\w\-]+)\(")
METADATA = re.compile(r'op_name="(?P<source>[^"]*)"')
Interval = tuple[str, float, float]  # operation, begin, end (ns)


def profile(run: Callable[[], Any], program: Any, steps: int) -> list[dict[str, Any]]:
    """Runs `steps` turns of `run` under the profiler.

    Args:
        run: makes one step.
        program: the executable that it calls.
        steps: number of turns.

    Returns:
        A row per operation, the costliest first, `idle` last: name, opcode, type, source, milliseconds a step, share.
    """
    run()
    found = record(lambda: [run() for _ in range(steps)], module=_module_name(program))
    spent, idle = shared_time(found)
    total = sum(spent.values()) + idle
    about = instructions(program.as_text())
    rows = [
        {"name": name, **about.get(name, UNKNOWN), "milliseconds": 1e-6 * ns / steps, "share": ns / total}
        for name, ns in sorted(spent.items(), key=lambda item: -item[1])
    ]
    return [*rows, {"name": "idle", **UNKNOWN, "milliseconds": 1e-6 * idle / steps, "share": idle / total}]


UNKNOWN = {"opcode": "", "type": "", "source": ""}


def record(run: Callable[[], Any], module: str) -> list[Interval]:
    """Returns the intervals in which the operations of the program `module` were in flight while `run` ran."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            jax.block_until_ready(run())
        path = max(pathlib.Path(folder).rglob("*.xplane.pb"))
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        events = [event for plane in planes for line in plane.lines for event in line.events]
        return list(intervals(events, module))


def intervals(events: Iterable[Any], module: str) -> list[Interval]:
    """Yields the operations among the profiler's events.

    On a CPU an operation may return before the threads of the pool have done its work; a second event then marks the
    end, linked to the first by number.
    """
    began: dict[Any, tuple[str, float, float]] = {}
    ended: dict[Any, float] = {}
    for number, event in enumerate(events):
        stats = dict(event.stats)
        if "hlo_op" in stats and str(stats.get("hlo_module", module)).startswith(module):
            name = str(stats["hlo_op"])
            if name.split(".")[0] not in CONTAINERS:
                key = ("linked", stats["_p"]) if "_p" in stats else ("alone", number)
                began[key] = (name, event.start_ns, event.start_ns + event.duration_ns)
        elif event.name.startswith("end: ") and "_c" in stats:
            ended["linked", stats["_c"]] = event.start_ns
    return [(name, start, max(end, ended.get(key, end))) for key, (name, start, end) in began.items()]


def shared_time(found: Iterable[Interval]) -> tuple[dict[str, float], float]:
    """Returns the wall time by operation, shared equally by those in flight, and the time without any."""
    edges: list[tuple[float, int, str]] = []
    for name, begin, end in found:
        edges += [(begin, 1, name), (end, -1, name)]
    edges.sort()
    spent: dict[str, float] = collections.defaultdict(float)
    flying: collections.Counter[str] = collections.Counter()
    idle, before = 0.0, edges[0][0] if edges else 0.0
    for now, change, name in edges:
        flight = flying.total()
        for other, count in flying.items():
            spent[other] += (now - before) * count / flight
        idle += 0.0 if flight else now - before
        flying[name] += change
        if not flying[name]:
            del flying[name]
        before = now
    return dict(spent), idle


def instructions(text: str) -> dict[str, dict[str, str]]:
    """Returns opcode, result type and source of each operation in the text of a compiled program."""
    found = {}
    for line in text.splitlines():
        if match := INSTRUCTION.match(line):
            source = METADATA.search(line)
            kind = re.sub(r"\{[^}]*\}", "", match["type"])
            target = re.search(r'custom_call_target="([^"]*)"', line)
            opcode = f"{match['opcode']} {target[1]}" if target else match["opcode"]
            found[match["name"]] = {"opcode": opcode, "type": kind, "source": source["source"] if source else ""}
    return found


def _module_name(program: Any) -> str:
    return re.match(r"HloModule ([\w.\-]+)", program.as_text())[1]  # pyright: ignore


def as_table(rows: list[dict[str, Any]], top: int) -> str:
    """Returns a table of the first `top` operations, the sum of the others, and the idle time."""
    *operations, idle = rows
    shown, rest = operations[:top], operations[top:]
    lines = [
        [
            f"{row['milliseconds']:.2f}",
            f"{100 * row['share']:.1f}",
            row["name"],
            row["opcode"],
            row["type"][:60],
            shortened(row["source"]),
        ]
        for row in shown
    ]
    for name, group in ((f"{len(rest)} others", rest), ("idle", [idle])):
        milliseconds, share = (sum(row[key] for row in group) for key in ("milliseconds", "share"))
        lines.append([f"{milliseconds:.2f}", f"{100 * share:.1f}", name, "", "", ""])
    return markdown(["ms", "%", "operation", "opcode", "result", "from"], lines)


def by_kind(rows: list[dict[str, Any]]) -> str:
    """Returns a table of the time by opcode, and by name for fusions."""
    kinds: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        kind = re.sub(r"[.\d]+$", "", row["name"]) if row["opcode"] in ("fusion", "") else row["opcode"]
        kinds[kind][0] += row["milliseconds"]
        kinds[kind][1] += row["share"]
    ordered = sorted(kinds.items(), key=lambda item: -item[1][0])[:15]
    return markdown(["ms", "%", "kind"], [[f"{ms:.2f}", f"{100 * share:.1f}", kind] for kind, (ms, share) in ordered])


def shortened(source: str) -> str:
    """Returns the end of a long path through the traced function."""
    source = re.sub(r"^jit\(\w+\)/", "", source)
    return source if len(source) <= 90 else "..." + source[-87:]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int, choices=sorted(flax_resnet.CPU_BATCHES), help="side of the images in pixels")
    parser.add_argument("--inference", action="store_true", help="profile a prediction instead of a training step")
    parser.add_argument("--network", choices=("ours", "plain"), default="ours", help="(default %(default)s)")
    parser.add_argument("--batch", type=positive(int), help="images per step (default: as in the other benchmarks)")
    parser.add_argument("--steps", type=positive(int), default=5, help="(default %(default)s)")
    parser.add_argument("--top", type=positive(int), default=25, help="operations shown (default %(default)s)")
    args = parser.parse_args(arguments)
    machine.prepare()
    dtype = jnp.dtype(machine.compute_type())
    ours = args.network == "ours"
    model = flax_resnet.Ours(dtype) if ours else flax_resnet.PlainFlax(dtype)
    options = machine.our_options() if ours else None
    batch = args.batch or flax_resnet.batches()[args.size]
    images, labels = flax_resnet.examples(args.size, batch)
    if args.inference:
        compiled = (flax_resnet.inference if ours else flax_resnet.plain_inference)(model, images)
        run: Callable[[], Any] = flax_resnet.predictor(compiled, 1)
    else:
        compiled = flax_resnet.training(model, images, labels, options)
        run = flax_resnet.trainer(compiled, 1)
    alone = 1e3 * medians(take_turns({"step": run}, args.steps))["step"]
    rows = profile(run, compiled.program, args.steps)
    watched = sum(row["milliseconds"] for row in rows)
    what = f"{'prediction' if args.inference else 'training step'}, {args.size} pixels, batch {batch}, {dtype}"
    print(f"{what}, {machine.device_name()}: {alone:.1f} ms, under the profiler {watched:.1f} ms\n")
    print(as_table(rows, args.top))
    print(by_kind(rows))


if __name__ == "__main__":
    main()
