"""The frame of the claims on trial: pairing, intervals, verdicts, and a trial that was stopped."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from scipy import stats

from docs.tables import claims_table
from experiments.claims import trial
from experiments.claims.fdrl import readout

OURS, THEIRS = [0.9, 0.8, 0.85, 0.95, 0.7], [0.8, 0.72, 0.74, 0.86, 0.61]


def values(ours=OURS, theirs=THEIRS):
    return {"ours": [{"score": v} for v in ours], "theirs": [{"score": v} for v in theirs]}


def test_the_interval_is_that_of_the_paired_differences():
    record = trial.compare(trial.Comparison("score", "ours", "theirs"), values())
    expected = stats.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    np.testing.assert_allclose(record["interval"], [expected.low, expected.high], rtol=1e-9)
    np.testing.assert_allclose(record["difference"], np.mean(OURS) - np.mean(THEIRS))
    # The spread between seeds is ten times that of the differences: unpaired, nothing would be decided.
    assert record["verdict"] == "holds"
    assert stats.ttest_ind(OURS, THEIRS)[1] > 0.05


@pytest.mark.parametrize(
    ("ours", "better", "verdict"),
    [
        (THEIRS[::-1], "higher", "undecided"),
        ([v - 0.2 for v in THEIRS], "higher", "contradicted"),
        ([v - 0.2 + 0.01 * i for i, v in enumerate(THEIRS)], "lower", "holds"),
        (OURS, "lower", "contradicted"),
    ],
)
def test_verdicts(ours, better, verdict):
    record = trial.compare(trial.Comparison("score", "ours", "theirs", better), values(ours))
    assert record["verdict"] == verdict


def test_against_a_number():
    record = trial.compare(trial.Comparison("score", "ours", 0.5), values())
    np.testing.assert_allclose(record["difference"], np.mean(OURS) - 0.5)


@pytest.fixture
def small_trial(tiny):
    def arm(width):
        def make(seed):
            config = tiny(max_steps=2)
            config.seed = seed
            config.model.width = width
            return config

        return make

    return trial.Trial(
        name="small",
        claim="A wider network is better.",
        arms={"wide one": arm(16), "narrow": arm(8)},
        measure=lambda arm, model: {"parameters": sum(x.size for x in jax.tree.leaves(model.variables["params"]))},
        comparisons=(
            trial.Comparison("parameters", "wide one", "narrow"),
            trial.Comparison("accuracy", "wide one", 1 / 7, scale=100, unit=" %"),
        ),
    )


def test_a_trial_that_was_stopped_goes_on(small_trial, tmp_path, monkeypatch):
    workdir, out = epath.Path(tmp_path / "runs"), tmp_path / "out"
    real, trained = trial.loop.train, []

    def train(config, folder):
        trained.append(folder.parent.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        if config.seed == 0:
            return real(config, folder)
        shutil.copytree(folder.parent / "seed0", folder)  # as good as a run of its own here
        return json.loads((folder / "results.json").read_text())

    monkeypatch.setattr(trial.loop, "train", train)
    arguments = ["--seeds=2", f"--workdir={workdir}", f"--out={out}", "--max_steps=2"]
    assert trial.main(small_trial, arguments) == 130
    assert not out.exists()
    assert trial.main(small_trial, arguments) == 0
    assert trained == ["wide_one", "narrow", "narrow", "wide_one", "narrow"], "what is measured is not trained again"

    record = json.loads((out / "results/claims/small.json").read_text())
    wide, narrow = (record["arms"][arm]["parameters"] for arm in ("wide one", "narrow"))
    assert min(wide) > 3 * max(narrow)
    assert record["comparisons"][0]["verdict"] == "holds"
    assert (out / "docs/claims/small.png").read_bytes().startswith(b"\x89PNG")
    lines = claims_table(out / "results/claims").splitlines()
    assert len(lines) == 4
    assert "wide one" in lines[2]
    assert "14.3" not in lines[2]


def known_record(out):
    """A record that was measured elsewhere, with one comparison of it."""
    arms = {name: {"score": list(v), "other": list(v[::-1])} for name, v in (("ours", OURS), ("theirs", THEIRS))}
    record = {"name": "known", "claim": "Old words.", "seeds": 5, "arms": arms, "comparisons": [], "minutes": 3.5}
    path = out / "results" / "claims" / "known.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record | {"git_commit": "abc"}))
    return path


def test_a_record_is_compared_and_drawn_anew_without_training(tmp_path, monkeypatch):
    path = known_record(tmp_path)
    monkeypatch.setattr(trial.loop, "train", lambda *_: pytest.fail("something is trained"))
    comparisons = (trial.Comparison("score", "ours", "theirs"), trial.Comparison("other", "ours", 0.5))
    arms = dict.fromkeys(("ours", "theirs"), lambda seed: pytest.fail("no config is needed"))
    known = trial.Trial("known", "New words.", arms, lambda arm, model: {}, comparisons)
    assert trial.main(known, ["--from_record", f"--out={tmp_path}"]) == 0
    record = json.loads(path.read_text())
    assert [c["measure"] for c in record["comparisons"]] == ["score", "other"]
    assert record["comparisons"][0] == trial.compare(comparisons[0], values())
    assert (record["claim"], record["minutes"], record["git_commit"]) == ("New words.", 3.5, "abc")
    assert (tmp_path / "docs/claims/known.png").read_bytes().startswith(b"\x89PNG")


def test_a_record_that_lacks_what_is_compared(tmp_path, capsys):
    arms = {"ours": lambda seed: None}
    unknown = trial.Trial("known", "", arms, lambda arm, model: {}, (trial.Comparison("third", "ours", 0.5),))
    assert trial.main(unknown, ["--from_record", f"--out={tmp_path}"]) == 2
    assert "without it the claim is measured" in capsys.readouterr().err
    before = known_record(tmp_path).read_text()
    assert trial.main(unknown, ["--from_record", f"--out={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "has no 'third' of ours" in said
    assert "\n" not in said.strip()
    assert (tmp_path / "results/claims/known.json").read_text() == before


@pytest.mark.slow
def test_all_arms_begin_with_one_trained_model(tiny, tmp_path):
    """It is trained once; arms that learn nothing end with its parameters, whatever their seed."""

    def still(rate):
        def make(seed=0):
            config = tiny(max_steps=2)
            config.seed = seed
            config.optimizer.learning_rate = rate
            return config

        return make

    nothing = trial.Comparison("accuracy", "still", 0.0)
    arms = {"still": still(0.0)}
    trial_ = trial.Trial("begun", "Nothing.", arms, lambda arm, model: {}, (nothing,), start=still(1e-2))
    record = trial.run(trial_, 2, epath.Path(tmp_path / "runs"), tmp_path / "out", 2)
    begun = trial.load(str(tmp_path / "runs" / "start")).variables["params"]
    untrained = trial.loop.make_setup(still(0.0)()).init().params
    assert not np.array_equal(*(np.asarray(jax.tree.leaves(p)[-1]) for p in (begun, untrained)))
    for seed in (0, 1):
        model = trial.load(str(tmp_path / "runs" / "still" / f"seed{seed}"))
        jax.tree.map(np.testing.assert_array_equal, model.variables["params"], begun)
    assert record["minutes"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--seeds=1"], "needs at least 2"), (["--max_steps=3"], "give --out=FOLDER")],
)
def test_bad_input(arguments, message, small_trial, capsys):
    assert trial.main(small_trial, arguments) == 2
    assert message in capsys.readouterr().err


def test_reading_action_units_out_of_latent_features():
    """A feature that holds the unit is found, and stands out from the others; noise reads nothing."""
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(60), 10)
    units = (rng.random((600, 3)) < 0.4) * rng.uniform(0.3, 1, (600, 3))
    latent = rng.normal(size=(600, 4, 6))
    noise = readout(latent, units, subject)
    assert abs(noise["auc"] - 0.5) < 0.08
    assert abs(noise["specialisation"]) < 0.08
    latent[:, 2, 1] += 6 * units[:, 0]
    latent[:, 0, 3] += 6 * units[:, 1]
    latent[:, 1, 0] += 6 * units[:, 2]
    planted = readout(latent, units, subject)
    assert planted["auc"] > 0.95
    assert planted["specialisation"] > 0.35
