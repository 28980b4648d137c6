"""The report of a run, one HTML page with its pictures: `write_report` and what it takes."""

from fer_jax.report.inspection import Inspection
from fer_jax.report.sections import Predictions, Profile, Samples
from fer_jax.report.write import write_report

__all__ = ["Inspection", "Predictions", "Profile", "Samples", "write_report"]
