"""Reads the examples of a run: those to train on and those that select the model, and changes training labels."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from fer_jax import methods
from fer_jax.config.fields import Config
from fer_jax.config.protocol import fold_number, part_to_test, split_to_test
from fer_jax.data.augment.augmentation import pipeline
from fer_jax.data.corrupt.occlusion import with_occluded_copies
from fer_jax.data.sources.folds import rows_by_class
from fer_jax.data.sources.points import MEASURED
from fer_jax.data.sources.source import Source, check_split, image_names, load, prepared_builder, split_off, take_fold
from fer_jax.data.targets.label_noise import with_label_noise
from fer_jax.engine.hosts import agree
from fer_jax.engine.mesh import is_main, on_main
from fer_jax.errors import UserError


def read_examples(config: Config) -> tuple[Source, Source, dict[str, Any] | None]:
    """Reads the examples of a run.

    Returns:
        The training examples; the validation examples, none if the last step is kept and nothing is held out; and the
        record of changes to the training labels, None if there are none.

    Raises:
        UserError: if the config, the data set and the method do not fit together, or hosts have different data.
    """
    train, validation = _training_and_validation(config)
    noise = None
    if config.data.label_noise or config.data.label_noise_file:
        names = () if config.data.label_noise else image_names(config.data, config.data.train_split)
        train, noise = with_label_noise(train, config.data, names)
    if config.data.occluded_copies:  # after the split: no copy of a held-out example trains
        train = with_occluded_copies(train, config.seed, config.data.occlusion_masks)
    parts = {"training": train, "validation": validation}
    facts = {name: {"examples": len(part), "digest": examples_digest(part)[:12]} for name, part in parts.items()}
    agree("data", facts, "prepare the same on every host")
    return train, validation, noise


def examples_digest(source: Source) -> str:
    """Returns the SHA-256 of examples: of the data set's digest, the rows in it, and the labels."""
    digest = hashlib.sha256(source.data_digest.encode())
    digest.update(np.ascontiguousarray(source.rows, "<i8").tobytes())
    digest.update(np.ascontiguousarray(source.arrays["label"], "<i8").tobytes())
    return digest.hexdigest()


def _training_and_validation(config: Config) -> tuple[Source, Source]:
    data = config.data
    on_main(lambda: prepared_builder(data))  # one process prepares, the others wait
    # A misspelt test split must not come to light when training is over.
    check_split(prepared_builder(data), data.dataset, split_to_test(config))
    _check_splits(config)
    train = load(data, data.train_split, training=True)
    _check_unit(config, train)
    if number := fold_number(config):
        train, tested = take_fold(train, number)
        _check_known(train, tested)
    if data.examples:
        train = _fewer(train, data.examples, data.examples_seed)
    if config.selection.rule == "best_on_test":
        return train, part_to_test(config, load(data, split_to_test(config), training=False))
    if data.validation_split:
        return train, load(data, data.validation_split, training=False)
    if config.selection.rule == "last" and not data.holdout_fraction:
        return train, train.select(np.arange(0))
    # The held-out part does not depend on the seed of training: all seeds are selected on the same examples.
    train, held_out = split_off(train, data.holdout_fraction, seed=0)
    if data.target in ("label", "majority"):
        return train, held_out
    # Validation is scored as the test split is, whatever rule makes the training targets.
    scored = load(data, data.train_split, training=False)
    return train, scored.select(np.flatnonzero(np.isin(scored.rows, held_out.rows)))


def _check_known(train: Source, tested: Source) -> None:
    """Raises UserError if no class of the test fold occurs in training, as with one picture per person."""
    unknown = np.isin(tested.arrays["label"], train.arrays["label"], invert=True)
    if unknown.all():
        raise UserError(
            f"config.fold: no class of the {len(tested)} tested examples of {tested.name} occurs in the training "
            "folds; give at least two examples of each class"
        )
    if unknown.any() and is_main():
        told = f"{int(unknown.sum()):,} of the {len(tested):,} tested examples have a class without training examples"
        print(f"note: {told}: they count as errors", flush=True)


def _fewer(train: Source, count: int, seed: int) -> Source:
    """Returns `count` examples with the class shares of `train`, rounded by largest remainders."""
    if count > len(train):
        raise UserError(f"config.data.examples={count}: {train.name} has {len(train)} to train on; give fewer, or 0")
    members, rng = rows_by_class(train.arrays["label"]), np.random.default_rng(seed)
    sizes = np.array([len(some) for some in members])
    wanted, rest = np.divmod(sizes * count, len(train))
    wanted[np.argsort(-rest, kind="stable")[: count - wanted.sum()]] += 1
    rows = [rng.permutation(some)[len(some) - n :] for some, n in zip(members, wanted, strict=True)]
    return train.select(np.sort(np.concatenate(rows)))


def _check_splits(config: Config) -> None:
    """Raises UserError for a split that has two roles."""
    data = config.data
    for name in ("test_split", "validation_split"):
        if data[name] == data.train_split and not config.fold:
            raise UserError(f"config.data.{name}='{data[name]}' is the training split: name another split")
    on_test = config.selection.rule == "best_on_test"
    if data.validation_split and data.validation_split == data.test_split and not on_test:
        raise UserError(
            f"config.data.validation_split='{data.validation_split}' is the test split: selecting on it would "
            "inflate the test score; if that is what you want, set config.selection.rule=best_on_test"
        )


def _check_unit(config: Config, train: Source) -> None:
    """Raises UserError for clips if the method or an option takes images, and the other way around."""
    wanted = "clips" if methods.load(config.method).takes == "frames" else "images"
    if wanted == train.unit:
        _check_options_of_clips(config, train)
        return
    here = f"method '{config.method}' takes {wanted}, but {train.name} has {train.unit}"
    if wanted == "images":
        raise UserError(f"{here}: set config.data.last_frames=3 to take the last faces of each clip as images")
    if config.data.last_frames:
        raise UserError(f"{here}: set config.data.last_frames=0 to take whole clips")
    raise UserError(f"{here}: set config.data.dataset to a data set of clips, such as synthetic_faces/clips")


def _check_options_of_clips(config: Config, train: Source) -> None:
    """Raises UserError for an option that exists for images only, if the data set has clips."""
    only_images = {
        "augmentation.train": "flip:alternate" if pipeline(config)[0].alternates else "",
        "data.points": "" if config.data.points in MEASURED else config.data.points,
        "data.occluded_copies": config.data.occluded_copies,
        "evaluation.occluded": config.evaluation.occluded,
        "evaluation.degraded": config.evaluation.degraded,
    }
    for field, value in only_images.items():
        if value and train.frames:
            raise UserError(f"config.{field}={value!r} is for images, but {train.name} has clips: leave it out")
