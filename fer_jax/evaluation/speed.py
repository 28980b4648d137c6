"""The speed table of README.md, from what `python -m benchmarks` kept: benchmarks/results/<device>.json."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fer_jax.errors import UserError, first_line

Run = Mapping[str, Any]
OURS, FEED, PLAIN, TORCH = "fer_jax", "fer_jax, Feed", "plain Flax", "PyTorch"
# What fer_jax holds itself to, as a share of PyTorch's best: by the kind of machine, the work and the side in pixels.
BARS = {
    ("cpu", "training"): {48: 1.0, 112: 0.8, 224: 0.8},
    ("cpu", "prediction"): {48: 1.0, 112: 1.0, 224: 1.0},
    ("cpu", "evaluation"): {48: 1.0, 112: 1.0, 224: 1.0},
    ("accelerator", "training"): {48: 1.3, 112: 1.3, 224: 1.0},
}
HEADER = (
    "| work | input, batch | fer_jax | plain Flax | PyTorch, its best way | fer_jax / PyTorch | bar | met |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def speed_table(folder: pathlib.Path) -> str:
    """Returns the Markdown of the newest run on each device that has the section, in images per second."""
    text = ""
    for device, runs in stored_runs(folder):
        with readable(f"what {folder} holds of {device}"):
            text += _device(device, runs)
    return text


def stored_runs(folder: pathlib.Path) -> Iterator[tuple[str, Sequence[Run]]]:
    """The runs of each device in a folder, the oldest first; files of other commands are passed over.

    Raises:
        UserError: for a file that is damaged.
    """
    for path in sorted(folder.glob("*.json")):
        with readable(path):
            stored = json.loads(path.read_text())
            if not (isinstance(stored, dict) and "runs" in stored):
                continue
            device, runs = stored["device"], stored["runs"]
        yield device, runs


@contextlib.contextmanager
def readable(what: Any) -> Iterator[None]:
    """Turns what damaged results lead to inside the `with` block into one line that names them."""
    try:
        yield
    except (OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{what} is damaged ({first_line(error)}): mend it, or move it away") from error


def newest(runs: Sequence[Run], section: str) -> tuple[Run, Any] | None:
    """The last whole run that measured a section, with what it measured; None where there is none.

    Whole is what was not quick, nor of some sizes or methods only.
    """
    for run in reversed(runs):
        found = run["sections"].get(section)
        if found and "error" not in found and not (run.get("quick") or run.get("partial")):
            return run, found
    return None


def _device(device: str, runs: Sequence[Run]) -> str:
    """The block of one device: a sentence, the table of the network, and the one of each method's roofline."""
    text = ""
    speeds = [(kind, found) for kind in ("train_step", "inference") if (found := newest(runs, kind))]
    if speeds:
        rows = [line for _, (run, result) in speeds for line in _rows(run, result["rows"])]
        text += f"{device}, {_named(speeds[0][1][0])}: images per second.\n\n{HEADER}{''.join(rows)}\n"
    if found := newest(runs, "roofline"):
        text += _roofline(device, found[1])
    if found := newest(runs, "waiting"):
        shares = [f"{100 * row['waiting']:.1f} % ({row['path']}, {row['size']} pixels)" for row in found[1]["rows"]]
        text += f"{device}, time spent waiting for data: {', '.join(shares)}.\n\n"
    return text


def _named(run: Run) -> str:
    named = [f"{name} {run['versions'][name]}" for name in ("jax", "flax", "torch") if name in run["versions"]]
    return ", ".join([run["dtype"], *named, run["when"][:10]])


def _rows(run: Run, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    machine = "cpu" if run["backend"] == "cpu" else "accelerator"
    for row in rows:
        kind, speed = row.get("kind", "training"), row["images_per_second"]
        best = max(((s, name) for name, s in speed.items() if name.startswith(TORCH)), default=None)
        # On an accelerator a training run makes many steps per dispatch: that is what competes.
        name = FEED if machine == "accelerator" and FEED in speed else OURS
        ours = f"{speed[name]:,.0f}" + (f" ({speed[FEED]:,.0f} in a run)" if FEED in speed and name == OURS else "")
        plain = f"{speed[PLAIN]:,.0f}" if PLAIN in speed else ""
        against = ratio = bar = met = ""
        if best:
            way = best[1].removeprefix(TORCH).removeprefix(", ") or "eager"
            against, ratio = f"{best[0]:,.0f} ({way})", f"{speed[name] / best[0]:.2f}"
            wanted = BARS.get((machine, kind), {}).get(row["size"]) if row["batch"] > 1 else None
            if wanted is not None:
                bar, met = f"{wanted:.1f}", "yes" if speed[name] / best[0] >= wanted else "no"
        what = f"{row['size']}x{row['size']}, {row['batch']}"
        yield f"| {kind} | {what} | {ours} | {plain} | {against} | {ratio} | {bar} | {met} |\n"


def _roofline(device: str, result: Mapping[str, Any]) -> str:
    """Measured time over the least that the machine allows, a row for each step."""
    limits = result["ceilings"]
    product, copy = 1e-9 * limits["operations_per_second"], 1e-9 * limits["bytes_per_second"]
    text = (
        f"{device}, each step against the machine's limits, {product:,.0f} GFLOP/s in a matrix product and "
        f"{copy:,.0f} GB/s in a copy:\n\n"
        "| step | input, images | GFLOP | MB | floor, ms | set by | measured, ms | times |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for row in result["rows"]:
        text += (
            f"| {row['method']}, {row['kind']} | {row['size']}x{row['size']}, {row['images']} "
            f"| {1e-9 * row['operations']:.1f} | {1e-6 * row['bytes']:.0f} | {1e3 * row['floor_seconds']:.3g} "
            f"| {row['bound']} | {1e3 * row['seconds']:.3g} | {row['times']:.1f} |\n"
        )
    return text + "\n"
