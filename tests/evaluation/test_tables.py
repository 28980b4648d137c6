"""README tables come from committed files."""

import json

from fer_jax.evaluation import tables


def result(seed, accuracy, experiment="fdrl"):
    return {
        "experiment": experiment,
        "variant": "x",
        "seed": seed,
        "params": 1000,
        "accuracy": accuracy,
        "mean_recall": 0.5,
        "nll": 1.0,
        "ece": 0.1,
        "wall_seconds": 90.0,
    }


def test_a_block_is_made_anew_from_its_folder(tmp_path):
    (tmp_path / "r").mkdir()
    for seed, accuracy in ((0, 0.6), (1, 0.62)):
        (tmp_path / "r" / f"{seed}.json").write_text(json.dumps(result(seed, accuracy)))
    text = tables.rewrite("before\n<!-- results: r -->\nold\n<!-- end -->\nafter\n", tmp_path)
    assert "| `fdrl.py:x` | 0, 1 | 1,000 | 61.00 ± 1.41 | 50.00 ± 0.00 |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert tables.rewrite(text, tmp_path) == text


def test_a_file_is_included_as_it_is(tmp_path):
    (tmp_path / "speed.md").write_text("| a | b |\n")
    text = tables.rewrite("<!-- include: speed.md -->\nold\n<!-- end -->\n", tmp_path)
    assert text == "<!-- include: speed.md -->\n| a | b |\n<!-- end -->\n"


def test_readme_shows_the_committed_results():
    assert tables.main(["--check"]) == 0
