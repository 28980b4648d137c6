"""The comparison of networks with a classifier on true action units, on a few faces."""

import json

from experiments import comparison
from experiments.claims import compound


def test_networks_and_pairs_are_scored_beside_action_units(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(compound.ARMS, "basic", lambda: tiny("baseline", max_steps=2))
    monkeypatch.setitem(compound.ARMS, compound.PAIRS, lambda: tiny("baseline", max_steps=2))
    monkeypatch.setitem(compound.ARMS, "softmax", lambda: tiny("compound", max_steps=2))
    for setting in ("keep_freed_memory", "use_compilation_cache"):  # they would outlast the test
        monkeypatch.setattr(comparison, setting, lambda: None)
    out = tmp_path / "out"
    arguments = ["--arms=basic,pairs_of_basic,softmax", f"--out={out}", f"--workdir={tmp_path / 'runs'}"]
    assert [compound.main(arguments) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().out.count("out, softmax\n") == 1
    basic, pairs, softmax = (
        json.loads((out / f"{arm}.json").read_text()) for arm in ("basic", compound.PAIRS, "softmax")
    )
    assert basic["faces"].startswith("synthetic_faces/basic, ")
    assert pairs["faces"] == softmax["faces"] != basic["faces"]
    assert basic["action_units"] > 0.9
    assert softmax["action_units"] == pairs["action_units"] > 0.5
    assert 0 <= pairs["all_parts_right"] <= 1
    assert "| pairs_of_basic | synthetic_faces/compound, " in (tmp_path / "out.md").read_text()
