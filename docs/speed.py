"""The speed table of docs/performance.md, from the runs in benchmarks/results/<device>.json."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fer_jax
from benchmarks.records import readable

Run = Mapping[str, Any]
OURS, FEED, PLAIN, TORCH = "fer_jax", "fer_jax, Feed", "plain Flax", "PyTorch"
# The aims of fer_jax, as a share of PyTorch's best: by the kind of machine, the work and the side in pixels.
BARS = {
    ("cpu", "training"): {48: 1.0, 112: 0.8, 224: 0.8},
    ("cpu", "prediction"): {48: 1.0, 112: 1.0, 224: 1.0},
    ("cpu", "evaluation"): {48: 1.0, 112: 1.0, 224: 1.0},
    ("accelerator", "training"): {48: 1.3, 112: 1.3, 224: 1.0},
}
HEADER = (
    "| work | input, batch | fer_jax | plain Flax | PyTorch, best variant | fer_jax / PyTorch | aim | met |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def speed_table(folder: pathlib.Path) -> str:
    """Returns the Markdown of the newest complete run on each device, in images per second; '' without any."""
    text = ""
    for device, runs in stored_runs(folder):
        with readable(f"the record of {device} in {folder}"):
            found = [run for kind in ("train_step", "inference") if (run := newest(runs, kind))]
            if found:
                rows = [line for run, result in found for line in _rows(run, result["rows"])]
                text += f"{device}, {_named(found[0][0])}: images per second.\n\n{HEADER}{''.join(rows)}\n"
    return text


def stored_runs(folder: pathlib.Path) -> Iterator[tuple[str, Sequence[Run]]]:
    """Yields each device in a folder with its runs, oldest first; skips the files of other commands.

    Raises:
        UserError: for a damaged file.
    """
    for path in sorted(folder.glob("*.json")):
        with readable(path):
            stored = json.loads(path.read_text())
            if not (isinstance(stored, dict) and "runs" in stored):
                continue
            device, runs = stored["device"], stored["runs"]
        yield device, runs


def newest(runs: Sequence[Run], section: str) -> tuple[Run, Any] | None:
    """Returns the last complete run that measured a section, with its result; None if there is none.

    Runs marked as quick, or of some sizes only, are not complete.
    """
    for run in reversed(runs):
        found = run["sections"].get(section)
        if found and "error" not in found and not (run.get("quick") or run.get("partial")):
            return run, found
    return None


def _named(run: Run) -> str:
    named = [f"{name} {run['versions'][name]}" for name in ("jax", "flax", "torch") if name in run["versions"]]
    old = ["measured with an earlier version of fer_jax"] if is_old(run) else []
    return ", ".join([run["dtype"], *named, run["when"][:10], *old])


def is_old(record: Mapping[str, Any]) -> bool:
    """Whether an earlier version of fer_jax produced a record."""
    return record.get("versions", {}).get("fer_jax", "").split(".")[:2] != fer_jax.__version__.split(".")[:2]


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
