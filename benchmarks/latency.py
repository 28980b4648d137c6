"""Milliseconds from a picture to its expressions: the model that comes with fer_jax beside PyPI's `fer`.

    python -m benchmarks.latency PHOTO --out results/latency.json [--fer=PYTHON]

PYTHON is the interpreter of another environment, in which `fer` is installed (it needs TensorFlow). Each contestant has
a process of its own, and they take turns: one face that is already cropped, 128 of them, and PHOTO, whose faces are to
be found.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import machine
from benchmarks.turns import markdown

ROUNDS = 15
TASKS = ("one face, cropped", "128 faces, cropped", "a photo")
# A contestant reads the number of a task from each line, and answers with its milliseconds and the number of faces.
START = """
import sys, time
import cv2, numpy as np
photo = cv2.imread(sys.argv[1])
faces = np.random.default_rng(0).integers(0, 256, (128, 48, 48), np.uint8)
"""
OURS = """
import fer_jax
model = fer_jax.load()
photo = np.ascontiguousarray(photo[..., ::-1])
tasks = (lambda: model.predict(faces[:1]), lambda: model.predict(faces), lambda: model.predict(photo))
"""
THEIRS = """
from fer.fer import FER
fer = FER()
wide = cv2.cvtColor(np.concatenate(list(faces), axis=1), cv2.COLOR_GRAY2BGR)
boxes = [(48 * n, 0, 48, 48) for n in range(128)]
tasks = (
    lambda: fer.detect_emotions(np.ascontiguousarray(wide[:, :48]), boxes[:1]),
    lambda: fer.detect_emotions(wide, boxes),
    lambda: fer.detect_emotions(photo),
)
"""
ANSWER = """
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    found = tasks[int(line)]()
    print(1000 * (time.perf_counter() - began), len(found), flush=True)
"""


class Contestant:
    """A process that is asked for one task at a time."""

    def __init__(self, python: str, program: str, photo: str):
        self._process = subprocess.Popen(
            [python, "-c", START + program + ANSWER, photo],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while self._line() != "ready":  # libraries may print
            pass

    def ask(self, task: int) -> tuple[float, int]:
        """Returns the milliseconds that a task took, and the number of faces that it classified."""
        assert self._process.stdin
        print(task, file=self._process.stdin, flush=True)
        milliseconds, faces = self._line().split()
        return float(milliseconds), int(faces)

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a contestant ended with status {self._process.wait()}")
        return line.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default="results/latency.json")
    parser.add_argument("--fer", default="", help="Python with `fer`")
    options = parser.parse_args()
    contestants = {"fer_jax": Contestant(sys.executable, OURS, str(options.photo))}
    if options.fer:
        contestants["fer"] = Contestant(options.fer, THEIRS, str(options.photo))
    times: dict[str, dict[str, list[float]]] = {name: {task: [] for task in TASKS} for name in contestants}
    faces: dict[str, int] = {}
    for turn in range(ROUNDS + 1):
        for number, task in enumerate(TASKS):
            for name, contestant in contestants.items():
                milliseconds, faces[name] = contestant.ask(number)
                if turn:
                    times[name][task].append(milliseconds)
    found: dict[str, Any] = {
        name: {task: statistics.median(values) for task, values in tasks.items()} for name, tasks in times.items()
    }
    record = machine.describe() | {"photo": options.photo.name, "faces": faces, "milliseconds": found}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    rows = [[task, *(f"{found[name][task]:.1f}" for name in contestants)] for task in TASKS]
    table = markdown(["milliseconds, median of 15", *contestants], rows)
    options.out.with_suffix(".md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
