"""The comparison of networks with a classifier on true action units, on a few faces."""

from etils import epath

from experiments.claims import compound


def test_networks_and_pairs_are_scored_beside_action_units(tiny, tmp_path, monkeypatch):
    basic, categories = tiny("baseline", max_steps=2), tiny("compound", max_steps=2)
    for config in (basic, categories):
        config.evaluation.report = False
    found = compound.measure({"basic": basic, "six_sigmoids": categories}, epath.Path(tmp_path))
    (place, of_basic), (_, of_pairs) = found.items()
    assert place.startswith("synthetic_faces/basic, ")
    assert set(of_basic) == {"chance", "action_units", "basic"}
    assert set(of_pairs) == {"chance", "action_units", "pairs_of_basic", "six_sigmoids"}
    assert of_basic["action_units"]["mean_recall"] > 0.9
    assert of_pairs["action_units"]["mean_recall"] > 0.5
    assert 0 <= of_pairs["pairs_of_basic"]["mean_recall"] <= 1
