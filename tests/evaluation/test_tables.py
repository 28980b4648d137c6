"""README tables come from committed files."""

import json
import re

import pytest

from fer_jax.errors import UserError
from fer_jax.evaluation import tables


def result(seed, accuracy, experiment="fdrl", **more):
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
    } | more


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


def test_seeds_trained_side_by_side_share_their_minutes(tmp_path):
    seeds = [{"seed": seed, "wall_seconds": 600.0, "training_seconds": 480.0, "side_by_side": 4} for seed in range(4)]
    (tmp_path / "seeds.json").write_text(json.dumps(result(0, 0.6, seeds=seeds, wall_seconds=600.0)))
    assert tables.table(tmp_path).endswith("| 2.5, 2.0 of training |\n")


def test_what_nobody_has_measured_is_said_so(tmp_path):
    for kind in ("results", "speed"):
        text = tables.rewrite(f"<!-- {kind}: r -->\nold\n<!-- end -->\n", tmp_path)
        assert text == f"<!-- {kind}: r -->\nnot measured yet\n<!-- end -->\n"


def test_a_file_that_is_not_there_is_refused_with_the_command_that_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "PAGES", ("page.md",))
    page = "<!-- results: r -->\nold\n<!-- end -->\n<!-- include: benchmarks/results/scaling.md -->\n<!-- end -->\n"
    (tmp_path / "page.md").write_text(page)
    assert tables.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "python -m benchmarks.scaling --out" in line
    assert (tmp_path / "page.md").read_text() == page
    with pytest.raises(UserError, match=r"own\.md, which a page includes, is not there"):
        tables.included("own.md", tmp_path)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("speed", '{"device": "a CPU", "runs": [', r"x\.json is damaged"),
        ("speed", '{"runs": []}', r"x\.json is damaged \(KeyError: 'device'\)"),
        ("speed", '{"device": "a CPU", "runs": [5]}', "holds of a CPU is damaged"),
        ("results", '{"experiment": "fdrl", "vari', r"x\.json is damaged"),
        ("results", '{"experiment": "fdrl", "variant": "x"}', r"x\.json is damaged \(KeyError: 'seed'\)"),
        ("claims", "[]", r"x\.json is damaged"),
    ],
)
def test_damaged_results_are_named_in_one_line_and_no_page_is_written(kind, text, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "PAGES", ("page.md",))
    page = f"<!-- {kind}: r -->\nold\n<!-- end -->\n"
    (tmp_path / "page.md").write_text(page)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "x.json").write_text(text)
    assert tables.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"error: .*{said}.*: mend it, or move it away$", line)
    assert (tmp_path / "page.md").read_text() == page


def test_every_included_file_has_a_command_that_writes_it():
    texts = [(tables.ROOT / page).read_text() for page in tables.PAGES]
    included = {m["path"] for text in texts for m in tables.BLOCK.finditer(text) if m["kind"] == "include"}
    assert included <= set(tables.COMMANDS)


def test_readme_shows_the_committed_results():
    assert tables.main(["--check"]) == 0
