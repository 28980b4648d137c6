"""The synthetic faces: same bytes everywhere, right labels and landmarks, a builder without TensorFlow."""

import dataclasses
import hashlib
import io
import itertools
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.corrupt import occluders
from fer_jax.errors import UserError
from fer_jax.labels import CODES, COMPOUND_EMOTIONS, EMOTIONS, parts_of
from fer_jax.randomness import Purpose, Stream, cosine, sine
from tfds_builders.synthetic_faces import annotators, clips
from tfds_builders.synthetic_faces.examples import draw, examples_of, generate, votes_of
from tfds_builders.synthetic_faces.expressions import (
    AFFECT,
    AU_COLUMN,
    AU_IDS,
    BASIC_RECIPES,
    PRESENCE,
    RECIPES,
    affect_of,
    sample_action_units,
)
from tfds_builders.synthetic_faces.geometry import build_face
from tfds_builders.synthetic_faces.landmark_check import landmark_errors
from tfds_builders.synthetic_faces.plan import Plan
from tfds_builders.synthetic_faces.pose import Pose, on_plane, on_sheet, project
from tfds_builders.synthetic_faces.renderer import paint, render
from tfds_builders.synthetic_faces.scene import MEAN_INTENSITY, sample_scene

# Of a few pictures of each kind. Changes only when the data set is meant to change.
DIGEST = "ce851f454c8a8404e6220e447b22a08c44aa3c0a84156b0332a2e99755382701"


def digest() -> str:
    sha = hashlib.sha256()
    for plan in (
        Plan(size=64),
        Plan(size=48, kind="compound"),
        Plan(size=40, bank="train"),
        Plan(bank="test"),
    ):
        scene, picture = draw(plan, "test", np.arange(24))
        for array in (picture.image, picture.landmarks, picture.occlusion, scene.units, votes_of(scene)):
            sha.update(np.ascontiguousarray(array).tobytes())
    clip = clips.draw_clip(sample_scene(0, 32, np.array([3]), np.array([3]), np.array([5])), 5, "train")
    sha.update(clip.picture.image.tobytes() + clip.units.tobytes())
    return sha.hexdigest()


def test_same_bytes_on_every_machine_and_numpy_version():
    assert digest() == DIGEST


def test_a_picture_does_not_depend_on_its_batch():
    for plan in (Plan(), Plan(bank="test"), Plan(kind="compound", size=40)):
        _, batch = draw(plan, "train", np.arange(12))
        for i in (0, 5, 11):
            _, alone = draw(plan, "train", np.array([i]))
            np.testing.assert_array_equal(alone.image[0], batch.image[i])
            np.testing.assert_array_equal(alone.landmarks[0], batch.landmarks[i])
            np.testing.assert_array_equal(alone.occlusion[0], batch.occlusion[i])


def test_seed_and_split_change_every_picture():
    _, first = draw(Plan(), "train", np.arange(4))
    _, other_seed = draw(Plan(seed=1), "train", np.arange(4))
    _, other_split = draw(Plan(), "test", np.arange(4))
    for other in (other_seed, other_split):
        assert all((first.image[i] != other.image[i]).mean() > 0.5 for i in range(4))


def test_own_sine_and_stream():
    angle = np.linspace(-9, 9, 1001)
    np.testing.assert_allclose(sine(angle), np.sin(angle), atol=1e-7)
    np.testing.assert_allclose(cosine(angle), np.cos(angle), atol=1e-7)
    draws = Stream(0, Purpose.VIEW, np.arange(500), capacity=64).uniform(2.0, 4.0, size=64)
    assert draws.min() >= 2
    assert draws.max() < 4
    np.testing.assert_allclose([draws.mean(), draws.std()], [3.0, 2 / 12**0.5], atol=0.02)
    with pytest.raises(ValueError, match="capacity"):
        Stream(0, Purpose.VIEW, [1], capacity=4).uniform(size=5)


def test_pixels_map_back_to_the_face():
    rng = np.random.default_rng(0)
    pose = Pose(
        *(
            rng.uniform(-a, a, 16).astype(np.float32) + b
            for a, b in ((0.4, 0), (0.2, 0), (0.3, 0), (2, 20), (3, 32), (3, 32))
        )
    )
    x, y = rng.uniform(-0.7, 0.7, (2, 16, 1)).astype(np.float32)
    pixel = project(pose, x, y)[:, 0]
    qx, qy = ((pixel[:, k] - c)[:, None, None] / pose.scale[:, None, None] for k, c in ((0, pose.x), (1, pose.y)))
    back = on_sheet(pose, qx, qy)
    np.testing.assert_allclose(back[0][:, 0], x, atol=1e-4)
    np.testing.assert_allclose(back[1][:, 0], y, atol=1e-4)
    relief = np.float32(0.3) * (y - np.float32(0.1))
    pixel = project(pose, x, y, relief)[:, 0]
    qx, qy = ((pixel[:, k] - c)[:, None, None] / pose.scale[:, None, None] for k, c in ((0, pose.x), (1, pose.y)))
    back = on_plane(pose, qx, qy, 0.0, 0.3, 0.1)
    np.testing.assert_allclose(back[0][:, 0], x, atol=1e-4)
    np.testing.assert_allclose(back[1][:, 0], y, atol=1e-4)


def test_landmarks_lie_on_the_drawn_parts():
    errors = landmark_errors(22, 64)
    for name, error in errors.items():
        assert error["mean"] < 0.5, name
        assert error["max"] < 1.5, name  # includes what the threshold misses at the thin end of a nearly shut eye


def test_recipes_are_those_of_the_table():
    assert tuple(recipe.name for recipe in RECIPES) == COMPOUND_EMOTIONS
    assert [(r.dominant, r.second) for r in RECIPES[7:]] == [parts_of(r.name) for r in RECIPES[7:]]
    assert [RECIPES[r].dominant for r in BASIC_RECIPES] == list(EMOTIONS[:7])
    assert {r.second for r in RECIPES} <= {"", *EMOTIONS[:7]}
    count = 400
    for category, recipe in enumerate(RECIPES):
        stream = Stream(0, Purpose.EXPRESSION, np.arange(count))
        units = sample_action_units(
            stream, np.full(count, category), np.full(count, 0.9), np.ones((count, len(AU_IDS)))
        )
        acts = units > 0
        assert acts[:, [AU_COLUMN[u] for u in recipe.always]].all()
        never = [AU_COLUMN[u] for u in AU_IDS if u not in recipe.always and u not in recipe.sometimes]
        assert not acts[:, never].any()
        np.testing.assert_allclose(acts.mean(axis=0), PRESENCE[category], atol=0.09)
        assert units.max(initial=0) <= 1
    table = np.rint(100 * PRESENCE).astype("u1").tobytes()  # compared number by number with the paper's, once
    assert hashlib.sha256(table).hexdigest()[:16] == "6f96c0bf68c5988a"


@pytest.mark.parametrize(
    ("unit", "moves"),
    [
        (1, lambda f: f.brows[0].inner < 0),
        (2, lambda f: f.brows[1].outer < 0),
        (4, lambda f: f.brows[0].inner > 0),
        (5, lambda f: f.eyes[0].up > 0),
        (6, lambda f: f.eyes[0].low < 0),
        (7, lambda f: f.eyes[1].up < 0),
        (9, lambda f: f.nose.base < 0),
        (10, lambda f: f.mouth.open_up > 0),
        (12, lambda f: (f.mouth.corner < 0) & (f.mouth.width > 0)),
        (15, lambda f: f.mouth.corner > 0),
        (17, lambda f: (f.mouth.y < 0) & (f.head.chin < 0)),
        (20, lambda f: f.mouth.width > 0),
        (23, lambda f: f.mouth.upper < 0),
        (24, lambda f: f.mouth.lower < 0),
        (25, lambda f: f.mouth.open_low > 0),
        (26, lambda f: f.head.chin > 0),
    ],
)
def test_action_units_move_the_face(unit, moves):
    scene = sample_scene(0, 64, np.arange(4), np.arange(4), np.zeros(4, int))
    units = scene.units.copy()
    units[:, AU_COLUMN[unit]] = 1
    rest, moved = (build_face(scene.who, u, 0 * scene.lopsided) for u in (scene.units, units))

    def difference(a, b):
        if isinstance(a, tuple):
            return tuple(difference(*pair) for pair in zip(a, b, strict=True))
        if isinstance(a, np.ndarray):
            return b - a
        fields = [f.name for f in dataclasses.fields(a)]
        return dataclasses.replace(a, **{f: difference(getattr(a, f), getattr(b, f)) for f in fields})

    assert moves(difference(rest, moved)).all()


def test_votes_follow_prior_and_intensity():
    scene, _ = draw(Plan(size=24), "train", np.arange(40))
    votes = votes_of(scene)
    assert (votes.sum(axis=1) == 10).all()
    for label in range(7):
        one = np.full(1001, label)
        intensity = np.linspace(2 * MEAN_INTENSITY - 1, 1, 1001)
        said = annotators.vote_distribution(one, one, intensity, MEAN_INTENSITY)
        np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-12)
        assert (said >= 0).all()
        mean = said[:, :8].mean(axis=0) / said[:, :8].mean(axis=0).sum()
        np.testing.assert_allclose(mean, annotators.PRIOR[label] / annotators.PRIOR[label].sum(), atol=1e-6)
        if label:
            assert said[0, 0] > said[-1, 0]  # the weakest looks more neutral
            assert said[0, label] < said[-1, label]
    pair = annotators.vote_distribution(np.array([1]), np.array([2]), np.array([MEAN_INTENSITY]), MEAN_INTENSITY)
    assert pair[0].argsort()[-2:].tolist() == [2, 1]


def test_splits_share_neither_people_nor_occluders():
    plan = Plan()
    (_, train, labels), (_, test, _) = (plan.identify(s, np.arange(plan.count(s))) for s in ("train", "test"))
    assert not set(train) & set(test)
    counts = np.bincount(labels, minlength=7)
    counts = counts[counts > 0]
    assert counts.max() - counts.min() <= 0.02 * counts.max()
    assert not set(occluders.BANKS["train"]) & set(occluders.BANKS["test"])
    for bank, kinds in occluders.BANKS.items():
        scene = sample_scene(0, 24, np.arange(60), np.arange(60), np.zeros(60, int))
        drawn = occluders.sample_occluder(0, bank, scene.index, scene.pose).kind
        assert {occluders.KINDS[k] for k in drawn} == set(kinds)


@pytest.mark.parametrize("bank", ["train", "test"])
def test_mask_marks_exactly_the_changed_pixels(bank):
    index = np.arange(24)
    scene = sample_scene(0, 64, index, index, index % 22)
    clean = paint(scene, build_face(scene.who, scene.units, scene.lopsided))
    covered = clean.copy()
    mask = occluders.cover(covered, occluders.sample_occluder(0, bank, index, scene.pose))
    np.testing.assert_array_equal(mask, (clean != covered).any(axis=0))
    share = mask.mean(axis=(1, 2))
    assert share.min() > 0.02
    assert share.max() < 0.6
    picture = render(scene, occluders.sample_occluder(0, bank, index, scene.pose))
    np.testing.assert_array_equal(picture.occlusion, mask)
    np.testing.assert_array_equal(picture.landmarks, render(scene).landmarks)


def test_clips_run_from_neutral_over_apex_to_neutral():
    for n in range(6):
        apex = sample_scene(0, 32, np.array([n]), np.array([n]), np.array([1 + n % 6]))
        clip = clips.draw_clip(apex, 12, "train")
        course = clip.intensity[clip.has_face]
        assert course[0] <= 0.05 or not clip.has_face[0]
        assert course[-1] <= 0.05 or not clip.has_face[-1]
        if clip.has_face.all():
            assert course.max() == pytest.approx(float(apex.intensity[0]), rel=1e-3)
            rising = np.diff(course) > 1e-6
            assert not rising[course.argmax() + 1 :].any()
    images = [
        clips.draw_clip(sample_scene(0, 32, np.array([n]), np.array([n]), np.array([1])), 12, "test") for n in range(12)
    ]
    gone = next(c for c in images if not c.has_face.all())
    assert (gone.picture.landmarks[~gone.has_face] == 0).all()
    assert (gone.intensity[~gone.has_face] == 0).all()


def test_workers_do_not_change_the_examples():
    plan = Plan(size=24, train=70)
    alone, together = list(generate(plan, "train", workers=0)), list(generate(plan, "train", workers=2))
    assert len(alone) == len(together) == 70
    for a, b in zip(alone, together, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    assert examples_of(plan, "train", 40, 41)[0]["image"] == alone[40]["image"]


def test_a_worker_that_is_killed(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    with pytest.raises(UserError, match="killed.*memory"):
        next(generate(Plan(size=24, train=70), "train", workers=2))


def test_valence_and_arousal_are_those_of_the_emotions_times_the_intensity():
    names = [recipe.name for recipe in RECIPES]
    assert affect_of(names.index("happily surprised"), 0.5) == pytest.approx((0.3025, 0.295))
    (face,) = examples_of(Plan(size=24, affect=True), "test", 1, 2)
    np.testing.assert_allclose(np.divide((face["valence"], face["arousal"]), face["intensity"]), AFFECT[face["label"]])


def test_people_as_classes_are_the_same_in_both_splits():
    plan = Plan(kind="identities", size=24, train=21, test=6, per_subject=7, gray=True)
    drawn = {split: list(generate(plan, split)) for split in ("train", "test")}
    for split, each in (("train", 7), ("test", 2)):
        people = [example["label"] for example in drawn[split]]
        assert sorted(people) == sorted(plan.classes() * each)
    assert {(e["label"], e["code"]) for e in drawn["train"]} == set(itertools.product(plan.classes(), range(7)))
    pictures = [e["image"] for split in drawn for e in drawn[split]]
    assert len(set(pictures)) == len(pictures)
    assert Image.open(io.BytesIO(pictures[0])).mode == "L"
    people = [plan.identify(split, np.arange(3))[1].tolist() for split in drawn]
    assert people == [[0, 1, 2], [0, 1, 2]]  # who are those of the other configurations' train split


def test_plan_refuses_what_it_cannot_draw(tmp_path):
    from tfds_builders.synthetic_faces import synthetic_faces_dataset_builder as faces

    with pytest.raises(UserError, match="kind"):
        Plan(kind="video")
    with pytest.raises(UserError, match="one person: give two or more"):
        Plan(kind="identities", train=20, per_subject=20)
    with pytest.raises(UserError, match="compound"):
        faces.Builder.make("compund", str(tmp_path), {})
    with pytest.raises(UserError, match="train is 10000000000000; .* 1,048,576 at most"):
        Plan(train=10**13)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    from tfds_builders.synthetic_faces import synthetic_faces_dataset_builder as faces

    folder = str(tmp_path_factory.mktemp("data"))
    made = {}
    for name in faces.DEFAULTS:
        people = {"per_subject": 3} if name == "identities" else {}
        builder = faces.Builder.make(name, folder, {"size": 32, "train": 9, "test": 7, **people})
        builder.download_and_prepare()
        made[name] = builder
    return made


@pytest.mark.parametrize("name", ["basic", "compound", "occluded_train", "occluded_test"])
def test_still_pictures_survive_storage(prepared, name):
    source = prepared[name].as_data_source(split="test")
    plan = prepared[name].plan
    scene, picture = draw(plan, "test", np.arange(7))
    assert len(source) == 7
    for i in range(7):
        record = source[i]
        np.testing.assert_array_equal(record["image"], picture.image[i])
        np.testing.assert_array_equal(record["occlusion_mask"][..., 0] == 255, picture.occlusion[i])
        np.testing.assert_array_equal(record["landmarks"], picture.landmarks[i])
        np.testing.assert_array_equal(record["action_units"], scene.units[i])
        np.testing.assert_array_equal(record["votes"], votes_of(scene)[i])
        assert record["occluded_fraction"] == pytest.approx(picture.occlusion[i].mean())
        assert record["intensity"] == scene.intensity[i]
        recipe = RECIPES[record["compound_label"]]
        names = prepared[name].info.features["label"].names
        assert names[record["label"]] == (recipe.name if name == "compound" else recipe.dominant)
        assert CODES["synthetic_faces"][record["code"]] == recipe.dominant
        np.testing.assert_array_equal(record["pose"], [scene.pose.yaw[i], scene.pose.pitch[i], scene.pose.roll[i]])
        assert record["subject"] >= 1 << 16


def test_occluded_records_pair_with_basic_ones(prepared):
    clean, covered = (prepared[n].as_data_source(split="test") for n in ("basic", "occluded_test"))
    for a, b in zip(clean, covered, strict=True):
        for key in ("landmarks", "label", "subject", "votes", "action_units"):
            np.testing.assert_array_equal(a[key], b[key])
        hidden = b["occlusion_mask"][..., 0] == 255
        assert hidden.any()
        far = ~hidden  # blur and block coding may carry an occluder's color a few pixels on
        assert (a["image"] == b["image"])[far].mean() > 0.5
    assert "train" not in prepared["occluded_test"].info.splits
    assert prepared["occluded_test"].info.metadata["occluder_bank"] == "test"


def test_clips_survive_storage(prepared):
    source = prepared["clips"].as_data_source(split="train")
    shapes = {
        "landmarks": (12, 68, 2),
        "action_units": (12, len(AU_IDS)),
        "frame_intensity": (12,),
        "pose": (12, 3),
    }
    record = source[4]
    assert len(record["frames"]) == len(record["occlusion_mask"]) == 12
    assert record["frames"][0].shape == (32, 32, 3)
    assert record["frame_mask"].dtype == np.bool_
    assert {key: record[key].shape for key in shapes} == shapes
    assert prepared["clips"].info.features["label"].names == list(EMOTIONS[:7])


def test_no_tensorflow_and_no_work_at_import(tmp_path):
    code = (
        "import sys\n"
        "from tfds_builders.synthetic_faces import synthetic_faces_dataset_builder as faces\n"
        f"b = faces.Builder.make('basic', {str(tmp_path)!r}, dict(size=24, train=7, test=7))\n"
        "b.download_and_prepare()\n"
        "assert b.as_data_source(split='test')[0]['image'].shape == (24, 24, 3)\n"
        "assert not {'tensorflow', 'torch', 'jax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
