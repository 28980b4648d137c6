"""The report of a run: `write_report` and what it is given."""

from fer_jax.report.shown import Shown
from fer_jax.report.write import Predictions, Profile, Samples, write_report

__all__ = ["Predictions", "Profile", "Samples", "Shown", "write_report"]
