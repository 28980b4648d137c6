"""The arms of the recipe's pieces: each changes it, to something that can be trained."""

import json
import re

import pytest

from benchmarks import time_to_accuracy as pieces
from experiments.fer2013_fast import get_config
from fer_jax.config.check import check_config
from fer_jax.errors import UserError


def field_of(config, path):
    for name in path.split("."):
        assert name in config, path
        config = config[name]
    return config


@pytest.mark.parametrize("arm", pieces.ARMS)
def test_an_arm_is_a_config_that_can_be_trained(arm):
    recipe, config = get_config("cpu"), pieces.config_of(arm)
    for path, value in pieces.ARMS[arm].items():
        field_of(recipe, path)
        assert field_of(config, path) == value
    assert (config.to_json() == recipe.to_json()) == (arm == pieces.RECIPE)
    check_config(config)


def test_arms_are_chosen_by_number_or_name_and_come_with_the_recipe():
    names = list(pieces.ARMS)
    assert names[0] == pieces.RECIPE
    assert pieces.chosen("") == names
    assert pieces.chosen("no flips, 2") == [names[0], names[2], "no flips"]
    assert not [name for name in names if "," in name or name.isdigit()]
    with pytest.raises(UserError, match="there is no arm 'no flps'; did you mean 'no flips'"):
        pieces.chosen("no flps")


def test_a_misspelt_arm_ends_in_one_line_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "pieces.json"
    assert pieces.main([f"--out={out}", "--arms=99"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --arms=99: there is no arm '99'")
    assert not out.exists()


RUN = {"arm": pieces.RECIPE, "seed": 0, "accuracy": 0.6, "seconds": 60.0}


@pytest.mark.parametrize(
    ("options", "text", "said"),
    [
        (["--seeds=0"], None, "--seeds=0: give at least 1"),
        ([], json.dumps({"epochs": 5.0, "split": "public_test", "recipe": {}, "runs": [RUN]}), "of another recipe"),
        (["--epochs=3"], '{"epochs": 5.0, "split": "public_test", "runs": []}', "the runs in .* have 5; leave it out"),
        ([], '{"epochs": 5.0, "runs": [', r"pieces\.json is damaged"),
    ],
)
def test_what_does_not_fit_the_file_is_refused(options, text, said, tmp_path, capsys):
    out = tmp_path / "pieces.json"
    if text is not None:
        out.write_text(text)
    assert pieces.main([f"--out={out}", *options]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert (out.read_text() if out.exists() else None) == text


def test_the_table_pairs_the_seeds_and_leaves_out_what_was_not_trained(tmp_path):
    runs = [
        {"arm": arm, "seed": seed, "accuracy": accuracy, "seconds": 60.0}
        for arm, seed, accuracy in ((pieces.RECIPE, 0, 0.6), (pieces.RECIPE, 1, 0.62), ("no flips", 0, 0.59))
    ]
    record = {"epochs": 5.0, "split": "public_test", "device": "some CPU", "runs": runs}
    lines = pieces.as_table(json.loads(json.dumps(record))).splitlines()
    assert lines[2:] == ["| the recipe | 60.0 / 62.0 |  | 60 |", "| no flips | 59.0 | -1.0 | 60 |"]
