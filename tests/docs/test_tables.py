"""README tables come from committed files."""

import json
import re

import pytest

from docs import readings, tables
from fer_jax import __version__
from fer_jax.errors import UserError


def result(seed, accuracy, experiment="fdrl", **more):
    return {
        "experiment": experiment,
        "variant": "x",
        "seed": seed,
        "dataset": "faces",
        "versions": {"fer_jax": __version__},
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


def test_a_sweep_of_seeds_is_one_row(tmp_path):
    seeds = [{"seed": seed, "wall_seconds": 600.0, "training_seconds": 480.0} for seed in range(4)]
    (tmp_path / "seeds.json").write_text(json.dumps(result(0, 0.6, seeds=seeds)))
    row = tables.results_table(tmp_path).splitlines()[-1]
    assert "| 0, 1, 2, 3 |" in row
    assert row.endswith("| 10.0, 8.0 of training |")


def test_a_row_of_an_earlier_version_is_marked_until_it_is_run_again(tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    for old in ({}, {"fer_jax": "0.0.9"}):
        (folder / "fdrl_seed0.json").write_text(json.dumps(result(0, 0.6, versions=old)))
        assert "`fdrl.py:x` † |" in tables.results_table(folder)
        assert "`fdrl.py:x` † |" in tables.summary_table(tmp_path)
    (folder / "fdrl_seed0.json").write_text(json.dumps(result(0, 0.6)))
    assert "†" not in tables.results_table(folder) + tables.summary_table(tmp_path)


def test_the_summary_has_the_rows_of_all_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fdrl_seed0.json").write_text(json.dumps(result(0, 0.6, dataset=name)))
    first, second = tables.summary_table(tmp_path).splitlines()[-2:]
    assert first.startswith("| a | `fdrl.py:x` | 1 |")
    assert second.startswith("| b |")


def test_what_nobody_has_measured_is_said_so(tmp_path):
    for kind in ("results", "speed"):
        text = tables.rewrite(f"<!-- {kind}: r -->\nold\n<!-- end -->\n", tmp_path)
        assert text == f"<!-- {kind}: r -->\nnot measured yet\n<!-- end -->\n"


def test_a_file_that_is_not_there_yet_is_replaced_by_the_command_that_writes_it(tmp_path):
    text = tables.rewrite("<!-- include: benchmarks/results/reading.md -->\nold\n<!-- end -->\n", tmp_path)
    assert "not measured yet: `python -m benchmarks.reading --out" in text
    with pytest.raises(UserError, match=r"own\.md, which a page includes, is missing"):
        tables.included("own.md", tmp_path)


def test_runs_that_were_scored_on_private_test_are_logged_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "PAGES", ())
    runs = tmp_path / "results" / "equal_terms" / "fer2013" / "runs"
    runs.mkdir(parents=True)
    record = {"method": "eac", "seed": 2, "scored_on": "2026-12-01", "git_commit": 40 * "a"}
    (runs / "eac_seed2.json").write_text(json.dumps(record | {"accuracy": 0.64444, "mean_recall": 0.6}))
    claim = tmp_path / "results" / "claims" / "pdls" / "PDLS_seed0.json"
    claim.parent.mkdir(parents=True)
    record |= {"arm": "PDLS", "seed": 0, "git_commit": 40 * "b" + "+"}
    claim.write_text(json.dumps(record | {"accuracy": 0.8, "mean_recall": 0.7}))
    assert tables.main(["--check"]) == 1
    assert [tables.main([]) for _ in range(2)] == [0, 0]
    assert tables.main(["--check"]) == 0
    assert (tmp_path / readings.LOG).read_text().splitlines()[1:] == [
        "2026-12-01,aaaaaaa,equal_terms.py:fer2013 eac seed 2,0.6444,0.6000",
        "2026-12-01,bbbbbbb+,claims/pdls.py PDLS seed 0,0.8000,0.7000",
    ]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("speed", '{"device": "a CPU", "runs": [', r"x\.json is damaged"),
        ("speed", '{"runs": []}', r"x\.json is damaged \(KeyError: 'device'\)"),
        ("speed", '{"device": "a CPU", "runs": [5]}', "a CPU in .* is damaged"),
        ("results", '{"experiment": "fdrl", "vari', r"x\.json is damaged"),
        ("results", '{"experiment": "fdrl", "variant": "x"}', r"x\.json is damaged \(KeyError"),
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
    assert re.search(f"error: .*{said}.*: fix it, or move it away", line)
    assert (tmp_path / "page.md").read_text() == page


def test_every_included_file_has_a_command_that_writes_it():
    texts = [(tables.ROOT / page).read_text() for page in tables.PAGES]
    included = {m["path"] for text in texts for m in tables.BLOCK.finditer(text) if m["kind"] == "include"}
    assert included <= set(tables.COMMANDS)


def test_pages_show_the_committed_results():
    assert tables.main(["--check"]) == 0
