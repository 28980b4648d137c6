"""Several runs as one: every fold, several seeds, or every fold of several seeds. The one frame of them.

Each run has a folder of its own under that of the sweep, the very folder that it has when it is trained alone. So a
sweep that was killed goes on where it was, and a run that was trained there before, or on another machine, counts.
What makes folds folds and seeds seeds is in `sweep_folds` and `sweep_seeds`: which runs there are (`first`,
`members`), and what is said of all of them (`together`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from etils import epath

from fer_jax.config.check import check_config
from fer_jax.config.fields import Config, assign
from fer_jax.config.protocol import ALL
from fer_jax.engine.mesh import on_main
from fer_jax.errors import UserError, writing
from fer_jax.evaluation.results import headline
from fer_jax.report import write_report
from fer_jax.runs.evaluate import check_changes, evaluation_folder, make_places
from fer_jax.runs.evaluate import evaluate as evaluate_model
from fer_jax.runs.workdir import check_owner, claim, stored_config, with_kept_files, write_json
from fer_jax.sweeps import sweep_folds, sweep_seeds
from fer_jax.sweeps.members import Run
from fer_jax.training import loop
from fer_jax.training.results import print_finished
from fer_jax.training.setup import Setup, make_setup


def is_sweep(workdir: epath.Path) -> bool:
    """Whether a work directory holds several runs."""
    return _kind(stored_config(workdir)) is not None


def train(config: Config, workdir: epath.Path) -> dict[str, Any]:
    """Trains what `config` says under `workdir`: one run, or all runs of a sweep, those that are finished left alone.

    Returns:
        What it wrote to results.json.

    Raises:
        UserError: for bad input, before anything is written.
        Interrupted: after SIGTERM or Ctrl-C, with what was being trained saved.
    """
    kind = _kind(config)
    if kind is None:
        return loop.train(config, workdir)
    check_config(config)
    grows = sweep_seeds.grows(config, workdir)
    if not grows:
        check_owner(workdir, config)
        finished = print_finished(workdir)
        if finished is not None:
            return finished
    setup = _common(config, workdir, training=True)
    members = kind.members(config, workdir, setup)
    with claim(workdir, config, grows=grows):
        runs = [Run(train(member.config, member.folder), member.folder) for member in members]
        return _write(kind, config, setup, runs, workdir, workdir / "results.json")


def evaluate(
    workdir: epath.Path,
    split: str = "",
    output: epath.Path | None = None,
    changes: Mapping[str, Any] | None = None,
    dataset: str = "",
) -> dict[str, Any]:
    """Scores the trained model of a run or a model file, or those of all runs of a sweep and all of them together.

    Args:
        workdir: the folder of a run or a sweep, which is not changed, or a model file.
        split: as in `runs.evaluate`; must be empty where every fold is tested.
        output: where the scores go; of a sweep `workdir/evaluation/results.json` by default, or, of a split that is
            given, `workdir/evaluation-<split>/results.json`.
        changes, dataset: as in `runs.evaluate`.

    Raises:
        UserError: as `runs.evaluate`, and where a run of the sweep is not trained to its end.
    """
    if not (workdir / "config.json").exists():
        return evaluate_model(workdir, split, output, changes, dataset)
    config = stored_config(workdir)
    kind = _kind(config)
    if kind is None:
        return evaluate_model(workdir, split, output, changes, dataset)
    kind.check_split(config, workdir, split or dataset)
    check_changes(changes or {}, config.method)
    config.train.platform, config.train.devices = "auto", 0
    for field, value in (changes or {}).items():
        assign(config, field, value)
    setup = _common(config, workdir, training=False)
    members = kind.members(config, workdir, setup)
    for member in members:
        if not (member.folder / "results.json").exists():
            raise UserError(
                f"{member.name} is not trained to its end in {member.folder}: start the command that trains "
                f"{workdir} again, or score a {kind.NAME} that is finished"
            )
    folder = _evaluation_folder(workdir, split, dataset)
    target = output or folder / "results.json"
    on_main(lambda: make_places(target, folder))  # said before the work, not after it
    runs = []
    for member in members:
        results = evaluate(member.folder, split, changes=changes, dataset=dataset)
        runs.append(Run(results, _evaluation_folder(member.folder, split, dataset, results)))
    return _write(kind, config, setup, runs, folder, target)


def _kind(config: Config) -> ModuleType | None:
    """Returns what sort of sweep a config asks for; None for a single run. Seeds come first: each has its folds."""
    if config.get("seeds", 1) != 1:
        return sweep_seeds
    return sweep_folds if config.get("fold") == ALL else None


def _common(config: Config, workdir: epath.Path, training: bool) -> Setup:
    """Returns the setup of the first run; refuses what that one would refuse, before anything is written."""
    kind = _kind(config)
    if kind is None:
        return make_setup(with_kept_files(config, workdir), training=training)
    member = kind.first(config, workdir)
    return _common(member.config, member.folder, training)


def _evaluation_folder(
    folder: epath.Path, split: str, dataset: str, results: Mapping[str, Any] | None = None
) -> epath.Path:
    """Returns where `evaluate` writes what it finds: of a sweep, or, given its results, perhaps of a single run."""
    if results is not None and not is_sweep(folder):
        return evaluation_folder(folder, results["split"], dataset)
    return evaluation_folder(folder, split, dataset) if split or dataset else folder / "evaluation"


def _write(
    kind: ModuleType, config: Config, setup: Setup, runs: Sequence[Run], folder: epath.Path, target: epath.Path
) -> dict[str, Any]:
    """Scores all runs together; writes `target` and the report in `folder`."""
    results: dict[str, Any] = {}

    def write() -> None:
        scored, predictions = kind.together(config, setup, runs, folder)
        results.update(scored)
        page = None
        with writing(f"the results under {folder}", "make room and start the same command again"):
            if config.evaluation.report:
                page = write_report(
                    folder / "report",
                    results=results | {"config": config.to_dict()},
                    history=[],
                    predictions=predictions,
                )
            write_json(target, results)
        said = (headline(results), results.get("protocol"), target, page)
        print("\n".join(map(str, filter(None, said))), flush=True)

    on_main(write)
    return results
