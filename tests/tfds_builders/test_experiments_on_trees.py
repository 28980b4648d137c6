"""The experiments of the papers' data sets, on tiny fake copies of these: two steps, then the test split and others."""

import functools
import importlib

import fake_afew
import fake_affectnet
import fake_affwild2
import fake_caer_s
import fake_ckplus
import fake_dfew
import fake_expw
import fake_fed_ro
import fake_fer2013
import fake_ferv39k
import fake_jaffe
import fake_kdef
import fake_mafw
import fake_mmi
import fake_oulu_casia
import fake_rafce
import fake_rafdb
import fake_sfew
import pytest
from building import OneFace
from etils import epath

from fer_jax import labels
from fer_jax.evaluation.metrics import AFFECT_SCORES
from fer_jax.inference.evaluate import evaluate
from fer_jax.report.circumplex import circumplex
from fer_jax.sweeps import sweep
from fer_jax.training import loop
from tfds_builders import __main__ as command

NARROW = {"model.width": 8, "data.image_size": 32, "augmentation.train": ("flip",), "train.batch_size": 4}


@pytest.fixture
def build(tmp_path):
    """A function that builds a data set from a fake tree and returns the folder of prepared data sets."""

    def make(dataset, files, *options):
        data = tmp_path / "data"
        arguments = ["--manual_dir", str(files), "--data_dir", str(data), "--allow_counts", "--jobs=1", *options]
        assert command.main(["build", dataset, *arguments]) == 0
        return data

    return make


@pytest.fixture
def faces_everywhere(monkeypatch, use_detector):
    """The videos of MMI are arrays, and a detector finds a face in every frame of MMI and Oulu-CASIA."""
    from tfds_builders.mmi import mmi_dataset_builder as mmi
    from tfds_builders.oulu_casia import oulu_casia_dataset_builder as oulu

    monkeypatch.setattr(mmi.video, "read", fake_mmi.read_array)
    monkeypatch.setattr(mmi.video, "require", lambda name: None)
    monkeypatch.setattr(oulu, "PEOPLE", len(fake_oulu_casia.PEOPLE))
    use_detector(OneFace())


@pytest.fixture
def config_on(build, monkeypatch, tiny):
    """A function that builds a data set from a fake tree and returns the config of an experiment on it."""

    def make(experiment, variant, dataset, files, *options, **changes):
        data = build(dataset, files, *options)
        config = importlib.import_module(f"experiments.{experiment}").get_config(variant)
        assert config.data.dataset.partition("/")[0] == dataset.partition("/")[0]
        config.data.dataset, config.data.data_dir = dataset, str(data)
        config.train.devices, config.train.max_steps, config.evaluation.batch_size = 1, 2, 8
        config.data.holdout_fraction = 0.3
        if "depth" in config.model:
            config.model.depth = 6
        for path, value in (NARROW | changes).items():
            *groups, name = path.split(".")
            here = config
            for group in groups:
                here = here[group]
            if path in changes or name in here:
                here[name] = value
        return config

    return make


def test_fdrl_on_rafdb_and_then_on_other_data_sets(tmp_path, config_on, build, faces_everywhere):
    fake_rafdb.make(tmp_path / "files", counts={"train": (4,) * 7, "test": (1,) * 7})
    config = config_on("fdrl", "rafdb", "rafdb/basic", tmp_path / "files")
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert (results["num_examples"], results["classes"]) == (7, list(labels.EMOTIONS[:7]))
    assert "protocol" not in results  # RAF-DB has a test split of its own
    assert (results["data"]["complete"], results["data"]["missing"]) == (False, 0)  # of 12,271 there are 28
    fakes = {"fed_ro": fake_fed_ro.make_folders, "sfew": fake_sfew.make, "ckplus": fake_ckplus.make}
    fakes |= {"mmi": fake_mmi.make, "oulu_casia": fake_oulu_casia.make}
    splits, scored = {"fed_ro": "test", "sfew": "validation"}, {}
    for dataset, fake in fakes.items():
        fake(tmp_path / dataset)
        build(dataset, tmp_path / dataset)
        split = splits.get(dataset, "train")
        other = evaluate(epath.Path(tmp_path / "run"), split, changes={"train.devices": 1}, dataset=dataset)
        scored[dataset] = other["num_examples"], len(other["classes"])
    clips = [min(3, frames) for _, _, code, frames in fake_ckplus.SEQUENCES if code not in (None, 2)]
    assert scored == {
        "fed_ro": (14, 7),
        "sfew": (7, 7),
        "ckplus": (sum(clips), 6),
        "mmi": (10, 6),
        "oulu_casia": (36, 6),
    }


@pytest.mark.slow
def test_compound_expressions_of_rafdb_are_learned_and_read_from_basic_ones(tmp_path, config_on, build):
    fake_rafdb.make(tmp_path / "files", "compound", {"train": (3,) * 11, "test": (1,) * 11})
    config = config_on("compound", "rafdb_compound", "rafdb/compound", tmp_path / "files")
    results = loop.train(config, epath.Path(tmp_path / "pairs"))
    assert results["classes"] == list(labels.COMPOUND_CODES["rafdb"].values())
    assert results["selection"]["metric"] == "mean_recall"
    assert 0 <= results["parts"]["all_right"] <= results["parts"]["one_right"] <= 1
    fake_rafdb.make(tmp_path / "basic", counts={"train": (3,) * 7, "test": (1,) * 7})
    loop.train(config_on("baseline", "rafdb", "rafdb/basic", tmp_path / "basic"), epath.Path(tmp_path / "run"))
    read = evaluate(epath.Path(tmp_path / "run"), changes={"train.devices": 1}, dataset="rafdb/compound")
    assert (read["classes"], read["num_examples"]) == (results["classes"], 11)
    assert "Compound expressions are read from the probabilities of basic ones." in read["protocol"]


def test_fan_on_afew(tmp_path, config_on):
    fake_afew.make(tmp_path / "files")
    config = config_on("fan", "afew", "afew/aligned", tmp_path / "files")
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert results["num_examples"] == len(fake_afew.clips("validation"))
    assert results["protocol"].startswith("The published validation split serves as the test split")


@pytest.mark.slow
def test_acnn_on_affectnet_and_then_on_fed_ro(tmp_path, config_on, build, monkeypatch):
    from tfds_builders.affectnet import affectnet_dataset_builder as affectnet

    for split in ("train", "validation"):
        monkeypatch.setitem(affectnet.COUNTS, split, fake_affectnet.COUNTS[split])
    files = fake_affectnet.make_npy(tmp_path / "files")
    narrow = {"model.patch_features": 4, "model.global_features": 8, "model.gate_channels": 4, "model.hidden": 8}
    # As on a machine whose memory the real one does not fit.
    changes = narrow | {"data.path": "disk", "model.gate_hidden": 4, "model.cut": "conv2_1", "model.patch": 3}
    config = config_on("acnn", "affectnet", "affectnet/classes7", files, **changes)
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert results["num_examples"] == 7
    assert 0 <= results["occluded"]["accuracy"] <= 1
    assert "validation split serves" in results["protocol"]
    fake_fed_ro.make_folders(tmp_path / "fed_ro")
    build("fed_ro", tmp_path / "fed_ro")
    other = evaluate(epath.Path(tmp_path / "run"), changes={"train.devices": 1}, dataset="fed_ro")
    assert other["num_examples"] == 14


def test_valence_and_arousal_of_affectnet(tmp_path, config_on, monkeypatch):
    from tfds_builders.affectnet import affectnet_dataset_builder as affectnet

    for split in ("train", "validation"):
        monkeypatch.setitem(affectnet.COUNTS, split, fake_affectnet.COUNTS[split])
    drawn = {}
    monkeypatch.setattr("fer_jax.runs.results.write_report", lambda *_, **parts: drawn.update(parts))
    files = fake_affectnet.make_csv(tmp_path / "files")
    config = config_on("baseline", "affectnet_affect", "affectnet/classes7", files, "--option=size=32")
    config.data.builder.size = 32
    run = epath.Path(tmp_path / "run")
    results = loop.train(config, run)
    assert (results["num_examples"], results["affect_examples"]) == (7, 6)
    assert -1 <= results["valence_ccc"] <= 1
    page = circumplex(results, drawn["predictions"])
    assert "data:image/png" in page
    assert "Of 6 annotated examples" in page
    again = evaluate(run, changes={"train.devices": 1, "evaluation.report": False})
    assert {name: again[name] for name in AFFECT_SCORES} == {name: results[name] for name in AFFECT_SCORES}


@pytest.mark.slow  # tests/test_experiments.py trains PSR, tests/tfds_builders/test_ferplus.py reads the votes
def test_psr_on_ferplus(tmp_path, config_on, monkeypatch):
    from tfds_builders.fer2013 import reading

    monkeypatch.setattr(reading, "COUNTS", fake_fer2013.COUNTS)
    fake = fake_fer2013.make()
    fake_fer2013.write_csv(tmp_path / "files", fake)
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = [
        f"{fake_fer2013.USAGES[split]},fer{row:07d}.png,"
        + ",".join("9" if c == row % 8 else "0" for c in range(8))
        + ",1,0"
        for row, split in enumerate(fake.split)
    ]
    (tmp_path / "files" / "fer2013new.csv").write_text("\n".join([header, *votes]) + "\n")
    narrow = {"model.sr_blocks": 1, "model.sr_width": 4, "model.hidden": 8, "model.width": 4}
    narrow |= {
        "model.multiples": (1,),
        "model.sep_pos": 6,
        "model.last": "pool2",
        "optimizer.groups": (),
    }  # one size: tests/test_experiments.py trains the pyramid
    config = config_on(
        *("psr", "ferplus", "ferplus", tmp_path / "files"),
        **narrow | {"init_from": "", "data.votes": "votes_new", "data.exclude": ("black",)},
    )
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert results["classes"] == list(labels.EMOTIONS)


def test_every_fold_of_ckplus_with_neutral_faces(tmp_path, config_on):
    sequences = [(f"S{subject:03d}", "001", 1 + subject % 7, 5) for subject in range(1, 21)]
    fake_ckplus.make(tmp_path / "files", sequences)
    config = config_on(
        *("baseline", "ckplus", "ckplus/labeled", tmp_path / "files", "--option=size=32"),
        **{"data.folds": "subject:2", "data.neutral_frames": 1, "train.max_steps": 1},
    )
    config.data.builder.size = 32
    config.evaluation.report = False
    results = sweep.train(config, epath.Path(tmp_path / "run"))
    assert results["num_examples"] == 20 * 4  # three peaks and a neutral face of each sequence
    assert results["classes"][0] == "neutral"
    assert results["pooled"]["correct"] == round(results["accuracy"] * 80)
    assert len(results["folds"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "scored"), [("geometry", 80), ("geometry_sequences", 20)])
def test_landmarks_in_every_fold_of_ckplus(tmp_path, config_on, experiment, scored):
    sequences = [(f"S{subject:03d}", "001", 1 + subject % 7, 5) for subject in range(1, 21)]
    fake_ckplus.make(tmp_path / "files", sequences, lower=0.3)
    config = config_on(
        *(experiment, "ckplus", "ckplus/labeled", tmp_path / "files", "--option=size=32"),
        **{"data.folds": "subject:2", "model.rounds": 10, "model.support": 64, "augmentation.train": ()},
    )
    config.data.builder.size = 32
    config.evaluation.report = False
    results = sweep.train(config, epath.Path(tmp_path / "run"))
    assert (results["num_examples"], len(results["folds"])) == (scored, 2)
    assert results["accuracy"] > 2 / 7  # other people move as those of the same class


CLIPS = {  # the fake tree of a data set of clips, how it is built, and how many clips are scored
    "dfew": (fake_dfew, ("--option=size=32",), 10),
    "ferv39k": (fake_ferv39k, ("--option=size=32",), 7),
    "mafw": (fake_mafw, ("--option=size=32",), 22),
}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", CLIPS)
def test_fan_on_clips(tmp_path, config_on, dataset):
    fake, options, scored = CLIPS[dataset]
    fake.make(tmp_path / "files")
    config = config_on("fan", dataset, dataset, tmp_path / "files", *options)
    config.data.builder.size = 32
    config.evaluation.report = False
    results = sweep.train(config, epath.Path(tmp_path / "run"))
    assert results["num_examples"] == scored
    assert len(results.get("folds", ())) == (5 if config.fold else 0)


VIDEOS = [(n, f"S{1 + n // 2:03d}-{n:03d}", 0, 1 + n % 2, 3) for n in range(6)]  # of MMI: two emotions of each person
IMAGES = {  # as CLIPS, with changes of the config
    "kdef/faces": (functools.partial(fake_kdef.make, angles=("S",), size=(56, 76)), 28, {"data.folds": "subject:2"}),
    "caer_s/boxes": (fake_caer_s.make, 7, {}),
    "expw/boxes": (fake_expw.make, 2, {}),
    "rafce/aligned": (fake_rafce.make, 14, {}),
    "affwild2/frames": (fake_affwild2.make, 9, {"data.builder.every": 1, "model.affect": True}),
    "jaffe/faces": (fake_jaffe.make, 15, {}),
    "mmi": (functools.partial(fake_mmi.make, some=VIDEOS), 18, {"data.folds": "subject:3"}),
    "oulu_casia": (fake_oulu_casia.make, 36, {"data.folds": "subject:3"}),
    "sfew": (fake_sfew.make, 7, {}),
    "fer2013": (lambda folder: fake_fer2013.write_csv(folder, fake_fer2013.make()), 9, {}),
    "image_folder/default": (lambda folder: fake_fer2013.write_kaggle_folders(folder, fake_fer2013.make()), 18, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", IMAGES)
def test_baseline_on_images(tmp_path, config_on, faces_everywhere, monkeypatch, dataset):
    from tfds_builders.fer2013 import reading

    monkeypatch.setattr(reading, "COUNTS", fake_fer2013.COUNTS)
    make, scored, changes = IMAGES[dataset]
    make(tmp_path / "files")
    sized = dataset not in ("sfew", "fer2013")  # whose pictures are stored as they are
    options, size = (("--option=size=32",), {"data.builder.size": 32}) if sized else ((), {})
    config = config_on(
        *("baseline", dataset.partition("/")[0], dataset, tmp_path / "files", *options),
        **{"data.holdout_fraction": 0, "selection.rule": "last"} | size | changes,
    )
    results = sweep.train(config, epath.Path(tmp_path / "run"))
    assert results["num_examples"] == scored
    assert not config.model.affect or -1 <= results["valence_ccc"] <= 1
