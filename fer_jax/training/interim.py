"""The report of a run in progress: its curves and the scores of the latest evaluation, without pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fer_jax.config.protocol import selected_on
from fer_jax.engine.mesh import is_main
from fer_jax.errors import writing
from fer_jax.evaluation.evaluate import Outputs
from fer_jax.parsing import read_lines
from fer_jax.report import Predictions, write_report
from fer_jax.training.results import model_card
from fer_jax.training.run import Run

SHARE = 0.01  # of the time, at most, that the reports of a run take
FIRST = 3.0  # seconds that the first one is expected to take


class InterimReport:
    """Writes the report after an evaluation if that takes less than `SHARE` of the time since the last one."""

    def __init__(self, run: Run):
        self._run, self._seconds, self._written = run, FIRST, time.perf_counter()

    def write(self, outputs: Outputs, scores: Mapping[str, Any]) -> None:
        """Reports the outputs and scores of an evaluation, if due; the full report is written at the end of the run."""
        run, began = self._run, time.perf_counter()
        config, total = run.setup.config, run.setup.total_steps
        due = began - self._written > self._seconds / SHARE and run.step < total
        if not (due and config.evaluation.report and is_main()):
            return
        labels = run.setup.validation.arrays["label"]
        facts = model_card(run.setup, run.state, run.record)["run"]
        state = f"Still training, at step {run.step:,} of {total:,}; scored on {selected_on(config)}."
        with writing(run.workdir / "report"):
            write_report(
                run.workdir / "report",
                results={"experiment": config.experiment, "variant": config.variant, **facts, **scores}
                | {"protocol": state, "selection": {"rule": "last", "best_step": run.step}},
                history=read_lines(run.workdir / "metrics.jsonl"),
                predictions=Predictions(outputs["logits"], labels) if "logits" in outputs else None,
            )
        self._written = time.perf_counter()
        self._seconds = self._written - began
