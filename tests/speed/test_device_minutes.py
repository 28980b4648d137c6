"""The script for an accelerator: its runs exist, what is done is not repeated, and time limits hold."""

import importlib

from benchmarks import accelerator
from benchmarks.accelerator import Section, main
from fer_jax.config.check import check_config


def test_the_runs_of_all_sections_are_experiments_that_can_be_trained():
    for quick in (False, True):
        found = [
            text for each in accelerator.sections(quick) for text in each.arguments if text.startswith("--config=")
        ]
        assert len(found) == 2
        for text in found:
            file, _, variant = text.removeprefix("--config=").partition(":")
            module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            check_config(module.get_config(*([variant] if variant else [])))


def test_what_is_done_is_not_repeated_and_what_hangs_is_ended(tmp_path, monkeypatch, capsys):
    write = (
        "import pathlib; p = pathlib.Path(r'{out}') / 'runs'; p.mkdir(exist_ok=True); (p / 'x').open('a').write('1')"
    )
    some = [
        Section("first", 60, ("-c", write), "runs/x"),
        Section("hangs", 0.5, ("-c", "import time; time.sleep(60)")),
        Section("fails", 60, ("-c", "raise SystemExit(3)")),
    ]
    monkeypatch.setattr(accelerator, "sections", lambda quick: some)
    for _ in range(2):
        assert main([f"--out={tmp_path}", "--data_dir=x"]) == 1
    assert (tmp_path / "first.json").read_text() == "1"
    out = capsys.readouterr().out
    assert out.count("first: ") == 1
    assert out.count("its time was up") == out.count("ended with status 3") == 2
