"""The tables of `python -m experiments.equal_terms`: methods compared with the baseline, and their learning rates."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparison import holm, mean, paired, percent, read_records, unpacked

CONTROL = "baseline"
WEAK = 0.1  # below the baseline: too weak to mean anything
Records = Sequence[Mapping[str, Any]]

NOTES = """\
Scores on private_test after the last epoch, one view of each picture. Differences are paired by picture on the seeds
that both have, with a bootstrap over pictures and seeds, p corrected for the number of methods (Holm); with three seeds
such intervals are somewhat too short. The lowest recall is that of any class in any seed. On public_test stand the
accuracy after the last epoch and the highest of the curve, which choosing the epoch on the tested pictures would
report. Epochs are those that the budget pays for; core-minutes are what a seed used in all, compiling and scoring
included, PSR's with its super-resolution, which its seeds share.

Options of EAC and SCN are those that `experiments/noise.py` found on public_test; the other methods have only their
learning rate from there. EAC's maps of the network that all share have 2x2 places. PSR smooths labels by how often the
annotators of FER+ confuse two classes, as its paper does; it alone sees pictures that are not standardized, in the
pixels of its super-resolution.
"""


def best_rate(records: Records, tried: Iterable[str]) -> str:
    """Returns the most accurate of the learning rates tried, of those that recognize every class if there are any."""
    found = {record["learning_rate"]: record for record in records}
    return max(tried, key=lambda rate: (never(found[rate]) == [], found[rate]["accuracy"]))


def never(record: Mapping[str, Any]) -> list[str]:
    """Returns the classes of which no example is recognized, or that training diverged."""
    return ["diverged"] if "diverged" in record else [name for name, recall in record["recall"].items() if recall == 0]


def table(methods: Iterable[str], folder: pathlib.Path) -> str:
    """Returns the tables of a folder's records, with the methods in this order."""
    runs, probes = (read_records(folder / kind, "method") for kind in ("runs", "probes"))
    shown = {method: runs[method] for method in methods if method in runs}
    lines = [NOTES, *_runs(shown)] if CONTROL in shown else ["No method has been scored yet.", ""]
    return "\n".join([*lines, *_probes({m: probes[m] for m in methods if m in probes}, shown)]) + "\n"


def _runs(runs: Mapping[str, Records]) -> list[str]:
    control = runs[CONTROL]
    votes = "kl_to_votes" in control[0]
    head = ["method", "parameters", "learning rate", "epochs", "core-minutes", "seeds", "accuracy, %"]
    head += ["to the baseline, points", "p", "mean recall, %", "lowest recall, %", "behind objects, %"]
    head += ["public_test: last, %", "best epoch, %", *(["KL to the votes"] if votes else [])]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    differences = _differences(runs)
    weak = [m for m, records in runs.items() if mean(records, "accuracy") < mean(control, "accuracy") - WEAK]
    for method, records in ((m, r) for m, r in runs.items() if m not in weak):
        first = records[0]
        cells = [method, f"{first['parameters']:,}", first["learning_rate"], f"{first['epochs']:.1f}"]
        cells += [f"{mean(records, 'core_minutes'):.1f}", str(len(records)), percent(records)]
        cells += [*differences.get(method, ("", "")), f"{100 * mean(records, 'mean_recall'):.1f}", _lowest(records)]
        cells += [f"{100 * mean(records, 'behind_objects'):.1f}"]
        cells += [f"{100 * np.mean([of(r['curve']) for r in records]):.1f}" for of in (lambda curve: curve[-1], max)]
        cells += [f"{mean(records, 'kl_to_votes'):.3f}"] if votes else []
        lines.append(f"| {' | '.join(cells)} |")
    if weak:
        named = ", ".join(f"{method} ({percent(runs[method])} %)" for method in weak)
        lines += ["", f"Too weak to mean anything, {100 * WEAK:.0f} points and more below the baseline: {named}."]
    return [*lines, ""]


def _differences(runs: Mapping[str, Records]) -> dict[str, tuple[str, str]]:
    """Returns each method's difference from the baseline in points with its interval, and p corrected over methods."""
    found = {}
    for method, records in runs.items():
        seeds = {record["seed"] for record in records} & {record["seed"] for record in runs[CONTROL]}
        if method != CONTROL and seeds:
            both = ([r for r in some if r["seed"] in seeds] for some in (runs[CONTROL], records))
            found[method] = paired(*map(unpacked, both))
    adjusted = holm({method: values[3] for method, values in found.items()})
    points = {method: [f"{100 * value:+.1f}" for value in values[:3]] for method, values in found.items()}
    return {m: (f"{d} ({low} to {high})", f"{adjusted[m]:.3f}") for m, (d, low, high) in points.items()}


def _lowest(records: Records) -> str:
    recall, name = min((value, name) for r in records for name, value in r["recall"].items() if value is not None)
    return f"{100 * recall:.0f} ({name})" if recall else f"**0 ({name})**"


def _probes(probes: Mapping[str, Records], runs: Mapping[str, Records]) -> list[str]:
    head = ["method", "learning rate", "accuracy, %", "mean recall, %", "never recognized", "chosen"]
    lines = ["Learning rates after a quarter of the epochs, on public_test:", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method, records in probes.items():
        used = {record["learning_rate"] for record in runs.get(method, ())}
        for record in records:
            rate, scores = record["learning_rate"], [f"{100 * record[n]:.1f}" for n in ("accuracy", "mean_recall")]
            cells = [method, rate, *scores, ", ".join(never(record)), "yes" if rate in used else ""]
            lines.append(f"| {' | '.join(cells)} |")
    return lines if probes else []
