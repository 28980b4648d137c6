"""Which examples are used to train, select and test a model: splits of the data set, or the folds of one split."""

from __future__ import annotations

from typing import Any

from fer_jax.config.fields import Config
from fer_jax.data.sources.folds import check_number, parse_division
from fer_jax.data.sources.source import Source, take_fold
from fer_jax.errors import UserError
from fer_jax.parsing import whole_number

NOTHING = "no examples"  # what selects a model where all examples train and the last step is taken
ALL = "all"  # config.fold: every fold in turn
NO_TEST_LABELS = ("affectnet", "affwild2", "afew", "sfew")  # the published validation split serves as the test split


def check_protocol(config: Config) -> None:
    """Raises UserError for a fold without a division, a division without a fold, and splits that folds replace."""
    fold, data = config.fold, config.data
    if fold and fold != ALL and not whole_number(fold, 1):
        raise UserError(f"config.fold='{fold}': give the number of a fold, from 1, or all")
    if fold and not data.folds:
        raise UserError(
            f"config.fold={fold} needs config.data.folds, which says how to divide the examples: give 'subject:10', "
            "'leave_one_subject_out' or 'stored'"
        )
    if not data.folds:
        return
    division = parse_division(data.folds)
    if not fold:
        raise UserError(
            f"config.data.folds='{data.folds}' needs the fold to test, such as config.fold=1, or config.fold=all for "
            "each in turn"
        )
    if division.count and fold != ALL:
        check_number(int(fold), division.count)
    if data.validation_split:
        raise UserError(
            f"config.data.validation_split='{data.validation_split}': with config.data.folds, a part of the other "
            "folds selects the model; leave it empty"
        )
    if data.test_split not in ("test", data.train_split):
        raise UserError(
            f"config.data.test_split='{data.test_split}': with config.data.folds, a fold of config.data.train_split="
            f"'{data.train_split}' is tested; leave it out"
        )


def fold_number(config: Config) -> int:
    """Returns the fold that is tested, counted from 1; 0 without folds."""
    if config.fold == ALL:
        raise UserError("config.fold=all is a sweep with one run per fold: name one fold, such as config.fold=1")
    return int(config.fold or 0)


def split_to_test(config: Config) -> str:
    """Returns the name of the test split, or of the split whose folds are tested."""
    return config.data.train_split if config.fold else config.data.test_split


def part_to_test(config: Config, source: Source) -> Source:
    """Returns the examples of `split_to_test` to test on: all of them, or one fold."""
    number = fold_number(config)
    return take_fold(source, number)[1] if number else source


def part_to_score(config: Config, source: Source) -> Source:
    """Returns the examples that `--split` scores: the whole split, or all but the test fold if its folds are tested."""
    number = fold_number(config)
    return take_fold(source, number)[0] if number and source.split == config.data.train_split else source


def fold_facts(config: Config, folds: int) -> dict[str, Any]:
    """Returns `fold` for results.json: its number or 'all', the number of folds, and how they were made."""
    if not config.fold:
        return {}
    number = ALL if config.fold == ALL else fold_number(config)
    return {"fold": {"number": number, "of": folds, "by": config.data.folds}}


def selected_on(config: Config) -> str:
    """Returns a phrase that says which examples the model is selected on."""
    data = config.data
    if config.selection.rule == "best_on_test":
        return "the test fold itself" if config.fold else data.test_split
    if config.selection.rule == "last" and not (data.validation_split or data.holdout_fraction):
        return NOTHING
    trained = "the other folds" if config.fold else data.train_split
    return data.validation_split or f"{data.holdout_fraction:.0%} of {trained}, held out"


def protocol(config: Config, folds: int = 0) -> str:
    """Returns one sentence on which examples were tested and selected on; '' for the data set's own test split.

    Args:
        config: of a run.
        folds: the number of folds.
    """
    chosen = {
        "best_validation": f"the model is selected on {selected_on(config)}",
        "best_on_test": "the model is selected on the tested examples themselves",
        "last": "the model is that of the last step",
    }[config.selection.rule]
    if config.fold:
        made = f"({parse_division(config.data.folds).describe()})"
        if config.fold == ALL:
            return f"Each of {folds} folds {made} is tested once, while the others train; {chosen}."
        return f"Fold {config.fold} of {folds} {made} is tested, the other folds train; {chosen}."
    if config.data.test_split == "validation" and config.data.dataset.partition("/")[0] in NO_TEST_LABELS:
        return f"The published validation split serves as the test split; {chosen}."
    return ""
