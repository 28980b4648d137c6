"""`fer-jax runs`: lists the work directories in a folder, in the terminal and on a page with links to the reports."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from fer_jax.errors import UserError, writing
from fer_jax.parsing import read_lines
from fer_jax.report.markup import element, percent, section, table
from fer_jax.report.write import check_free, write_page
from fer_jax.runs.workdir import read_results


@dataclasses.dataclass(frozen=True)
class Row:
    """A work directory: its path in the folder, its progress, and the scores of a finished run."""

    name: str
    state: str
    scored_on: str = ""
    accuracy: float | None = None
    mean_recall: float | None = None


def list_runs(folder: epath.Path) -> list[Row]:
    """Returns a row for each work directory below `folder`, in order of their paths.

    Raises:
        UserError: if there is none.
    """
    workdirs = sorted(path.parent for path in _configs(folder)) if folder.is_dir() else []
    if not workdirs:
        raise UserError(f"there is no work directory in {folder}: give the folder that contains them")
    return [_row(path, str(path.relative_to(folder))) for path in workdirs]


def write_index(folder: epath.Path, rows: list[Row]) -> epath.Path:
    """Writes `folder/index.html`; returns its path.

    Raises:
        UserError: if that is another page.
    """
    check_free(folder)
    lines = []
    for row in rows:
        page = f"{row.name}/report/index.html"
        name = element("a", row.name, href=page) if (folder / page).exists() else row.name
        lines.append((name, row.state, row.scored_on, _score(row.accuracy), _score(row.mean_recall)))
    head = ("Run", "State", "Scored on", "Accuracy", "Mean recall")
    card = element("div", table(lines, head=head), class_="card wide")
    with writing(folder):
        return write_page(folder, str(folder), [section("Runs", f"Work directories in {folder}.", card)])


def printed(rows: list[Row]) -> str:
    """Returns the rows as lines of text."""
    width, state = (max(len(getattr(row, field)) for row in rows) for field in ("name", "state"))
    return "\n".join(
        f"{row.name:<{width}}  {row.state:<{state}}  {_score(row.accuracy):>6}  {row.scored_on}".rstrip()
        for row in rows
    )


def _configs(folder: epath.Path) -> Any:
    for path in folder.iterdir():
        if path.name == "config.json":
            yield path
        elif path.is_dir() and path.name not in ("checkpoints", "report"):
            yield from _configs(path)


def _row(path: epath.Path, name: str) -> Row:
    try:
        results = read_results(path)
        if results is None:
            steps = [line["step"] for line in read_lines(path / "metrics.jsonl")]
            return Row(name, f"at step {max(steps):,}" if steps else "not begun")
    except UserError as error:
        return Row(name, f"unreadable: {error}")
    scored_on = f"{results['dataset']} {results['split']}"
    return Row(name, "finished", scored_on, results.get("accuracy"), results.get("mean_recall"))


def _score(value: float | None) -> str:
    return "" if value is None else percent(value)
