"""Label noise: its rates, what a label becomes, what decides it, and the lists of others that are read."""

import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy import stats

from fer_jax.data.sources import source
from fer_jax.data.sources.source import Source
from fer_jax.data.targets import label_noise
from fer_jax.data.targets.label_noise import noisy_labels, read_noise_list, with_label_noise, wrong_labels
from fer_jax.data.targets.prior import FERPLUS
from fer_jax.errors import UserError
from fer_jax.labels import CODES, EMOTIONS, canonical, classes
from fer_jax.training.setup import make_setup

N = 7_000
SEVEN = classes(7)
NAMES = [f"train_{number:05d}.jpg" for number in range(1, 301)]


def drawn(kind, names=SEVEN, rate=0.3, seed=0, rows=None):
    rows = np.arange(N) if rows is None else rows
    labels = (rows % len(names)).astype(np.int32)
    return labels, noisy_labels(labels, rows, wrong_labels(kind, names), rate=rate, seed=seed)


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "pair"])
@pytest.mark.parametrize("rate", [0.1, 0.45])
def test_the_rate_is_met_in_every_class_and_no_label_is_drawn_again(kind, rate):
    labels, noisy = drawn(kind, rate=rate)
    for y in range(7):
        changed = (noisy != labels)[labels == y]
        deviation = (rate * (1 - rate) / len(changed)) ** 0.5
        assert abs(changed.mean() - rate) < 4 * deviation
    _, all_wrong = drawn(kind, rate=1.0)
    assert (all_wrong != labels).all()
    _, none = drawn(kind, rate=0.0)
    np.testing.assert_array_equal(none, labels)
    assert noisy.dtype == np.int32


@pytest.mark.parametrize("names", [SEVEN, EMOTIONS, ("anger", "neutral")])
def test_symmetric_noise_is_uniform_over_the_other_classes(names):
    labels, noisy = drawn("symmetric", names, rate=1.0)
    for y in range(len(names)):
        counts = np.bincount(noisy[labels == y], minlength=len(names))
        assert counts[y] == 0
        others = np.delete(counts, y)
        assert others.sum() == (labels == y).sum()
        if len(names) > 2:
            assert stats.chisquare(others).pvalue > 1e-3


@pytest.mark.parametrize("names", [SEVEN, EMOTIONS, ("Fear", "happy", "neutral", "contempt")])
def test_pair_noise_goes_to_the_next_class_by_name(names):
    known = [name for name in EMOTIONS if name in {label_noise.ALIASES[n.lower()] for n in names}]
    labels, noisy = drawn("pair", names, rate=1.0)
    for y, name in enumerate(names):
        (became,) = np.unique(noisy[labels == y])
        following = known[(known.index(label_noise.ALIASES[name.lower()]) + 1) % len(known)]
        assert label_noise.ALIASES[names[became].lower()] == following
    if len(names) == 7:
        assert [SEVEN[c] for c in noisy[:7]] == [*SEVEN[1:], SEVEN[0]]


@pytest.mark.parametrize("names", [SEVEN, EMOTIONS, tuple(reversed(EMOTIONS)), ("fear", "surprise", "neutral")])
def test_asymmetric_noise_follows_the_votes_of_ferplus_by_name(names):
    labels, noisy = drawn("asymmetric", names, rate=1.0)
    for y, name in enumerate(names):
        votes = np.array([FERPLUS[EMOTIONS.index(name), EMOTIONS.index(other)] for other in names])
        votes[y] = 0
        counts = np.bincount(noisy[labels == y], minlength=len(names))
        expected = np.delete(votes / votes.sum() * counts.sum(), y)
        assert counts[y] == 0
        assert stats.chisquare(np.delete(counts, y), expected).pvalue > 1e-3
        assert counts.argmax() == votes.argmax()


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric", "pair"])
def test_what_becomes_of_a_label_depends_on_seed_and_row_only(kind):
    _, whole = drawn(kind)
    np.testing.assert_array_equal(whole, drawn(kind)[1])
    rows = np.random.default_rng(0).permutation(N)[:500]
    np.testing.assert_array_equal(drawn(kind, rows=rows)[1], whole[rows])
    labels, other = drawn(kind, seed=1)
    both = ((other != labels) & (whole != labels)).mean()
    assert abs(both - 0.09) < 0.015  # as often as independent ones


def test_what_is_wrong_at_a_rate_is_wrong_at_a_higher_one_in_the_same_way():
    labels, few = drawn("symmetric", rate=0.1)
    _, many = drawn("symmetric", rate=0.3)
    wrong = few != labels
    np.testing.assert_array_equal(many[wrong], few[wrong])


@pytest.mark.parametrize("kind", ["pair", "asymmetric"])
def test_classes_that_are_no_emotions(kind):
    with pytest.raises(UserError, match=f"label_noise='{kind}' .*'awed': give 'symmetric'"):
        wrong_labels(kind, ("awed", "anger"))
    assert wrong_labels("symmetric", ("awed", "anger")).tolist() == [[0, 1], [1, 0]]


def listed(tmp_path, lines):
    path = tmp_path / "noise.txt"
    path.write_text("\n".join(lines))
    return read_noise_list(path, "rafdb", SEVEN, "train", NAMES)


def good():
    """A list as the authors write it, in another order than the images', and the emotions it names."""
    rng = np.random.default_rng(3)
    codes = rng.integers(1, 8, len(NAMES))
    lines = [f"{name} {code}" for name, code in zip(NAMES, codes, strict=True)]
    return [lines[place] for place in rng.permutation(len(lines))], [
        canonical("rafdb", code) for code in codes.tolist()
    ]


def test_a_list_of_eacs_authors(tmp_path):
    lines, emotions = good()
    found = listed(tmp_path, lines)
    assert [SEVEN[c] for c in found] == emotions
    aligned = [line.replace(".jpg", "_aligned.jpg") for line in lines]
    np.testing.assert_array_equal(listed(tmp_path, ["test_0001.jpg 9", *aligned, ""]), found)
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    np.testing.assert_array_equal(read_noise_list(tmp_path / "windows.txt", "rafdb", SEVEN, "train", NAMES), found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:-2], "noise.txt lacks 2 of the 300"),
        (lambda lines: [*lines, lines[4]], r"noise.txt, row 301: train_\d+.jpg .* row 5"),
        (lambda lines: ["train_00301.jpg 5", *lines], "row 1: .*rafdb has no image train_00301.jpg"),
        (lambda lines: [lines[0], lines[1][:-1] + "8", *lines[2:]], "row 2: '8' .* 1, 2, 3, 4"),
        (lambda lines: [lines[0][:-1] + "happy", *lines[1:]], "row 1: 'happy'"),
        (lambda lines: ["train_00001.jpg", *lines], "row 1: expected a name and a label.* 'train_00001.jpg'"),
        (lambda lines: ["name,label,x y z", *lines], "row 1: expected a name and a label"),
        (lambda lines: [], "lacks 300 of the 300"),
    ],
)
def test_a_list_that_is_not_as_it_should_be(change, says, tmp_path):
    with pytest.raises(UserError, match=says) as caught:
        listed(tmp_path, change(good()[0]))
    assert "\n" not in str(caught.value)


def test_lists_that_are_none(tmp_path):
    with pytest.raises(UserError, match="nowhere is not there: .*label_noise_file"):
        read_noise_list(tmp_path / "nowhere", "rafdb", SEVEN, "train", NAMES)
    (tmp_path / "picture").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="picture, line 1 is not UTF-8 text"):
        read_noise_list(tmp_path / "picture", "rafdb", SEVEN, "train", NAMES)
    (tmp_path / "list").write_text("train_00001.jpg 1")
    with pytest.raises(UserError, match="codes of unheard .* config.data.label_noise"):
        read_noise_list(tmp_path / "list", "unheard", SEVEN, "train", NAMES)
    with pytest.raises(UserError, match="codes of rafdb for awed"):
        read_noise_list(tmp_path / "list", "rafdb", ("awed",), "train", NAMES)


def as_list(config, path, seed=5):
    """Writes the list that symmetric noise on a whole split is."""
    whole = source.load(config.data, "train", training=True)
    wrong = wrong_labels("symmetric", whole.classes)
    noisy = noisy_labels(whole.arrays["label"], whole.rows, wrong, rate=0.2, seed=seed)
    codes = {canonical("synthetic_faces", code): code for code in CODES["synthetic_faces"]}
    path.write_text("".join(f"train_{i + 1:05d}.jpg {codes[whole.classes[c]]}\n" for i, c in enumerate(noisy)))


def test_a_list_does_what_the_noise_it_was_written_from_does(tiny, tmp_path):
    config = tiny()
    as_list(config, tmp_path / "list.txt")
    config.data.label_noise_file = str(tmp_path / "list.txt")
    setup = make_setup(config)
    clean = setup.train.arrays["clean_label"]
    wrong = wrong_labels("symmetric", setup.train.classes)
    noisy = noisy_labels(clean, setup.train.rows, wrong, rate=0.2, seed=5)
    np.testing.assert_array_equal(setup.train.arrays["label"], noisy)
    assert setup.label_noise["changed"] == (noisy != clean).sum() > 20
    assert setup.label_noise["examples"] == len(setup.train)
    assert setup.label_noise["kind"] == "list"
    assert len(setup.label_noise["file_sha256"]) == 64


def test_only_what_trains_is_changed_and_the_truth_stays_beside_it(tiny):
    config = tiny("acnn")
    clean = make_setup(config)
    config.data.update(label_noise="symmetric", label_noise_rate=0.4)
    setup = make_setup(config)
    np.testing.assert_array_equal(setup.validation.arrays["label"], clean.validation.arrays["label"])
    assert "clean_label" not in setup.validation.arrays
    arrays = setup.train.arrays
    np.testing.assert_array_equal(arrays["clean_label"], clean.train.arrays["label"])
    np.testing.assert_array_equal(arrays["target"], np.eye(7)[arrays["label"]])
    assert arrays["target"].dtype == np.float32
    half = len(setup.train) // 2  # a copy behind an object has the label of its original
    np.testing.assert_array_equal(arrays["label"][:half], arrays["label"][half:])
    assert setup.label_noise["examples"] == half
    assert setup.label_noise["changed"] == (arrays["label"] != arrays["clean_label"]).sum() / 2
    assert 0.25 < setup.label_noise["changed_share"] < 0.55


def test_all_images_of_a_clip_are_wrong_alike():
    """Images taken of clips have the row of their clip, and so its draw."""
    rows = np.repeat(np.arange(100), 3)
    images = Source("x", "train", SEVEN, {"label": (rows % 7).astype(np.int32)}, rows)
    data = types.SimpleNamespace(label_noise="pair", label_noise_rate=0.5, label_noise_seed=0, label_noise_file="")
    noisy, record = with_label_noise(images, data)
    of_clips = noisy.arrays["label"].reshape(100, 3)
    assert (of_clips == of_clips[:, :1]).all()
    assert record["changed"] % 3 == 0 < record["changed"]


def test_a_list_is_in_the_codes_of_its_data_set(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 7, 300).astype(np.int32)
    images = Source("rafdb/basic", "train", SEVEN, {"label": label}, np.arange(300))
    codes = {name: code for code, name in enumerate(CODES["rafdb"].values(), start=1)}

    data = types.SimpleNamespace(label_noise="", label_noise_file=str(tmp_path / "list.txt"))
    for given in (label, rng.permutation(label)):
        lines = (f"{name} {codes[SEVEN[c]]}" for name, c in zip(NAMES, given, strict=True))
        (tmp_path / "list.txt").write_text("\n".join(lines))
        noisy, record = with_label_noise(images, data, NAMES)
        np.testing.assert_array_equal(noisy.arrays["label"], given)
        assert record["changed"] == (given != label).sum()


def test_names_that_a_data_set_keeps(tmp_path, monkeypatch):
    class Named(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None
        pkg_dir_path = tmp_path

        def _info(self):
            features = {"image": tfds.features.Image(shape=(8, 8, 1)), "name": tfds.features.Text()}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            import io

            from PIL import Image

            for key, number in enumerate((3, 1, 2)):
                file = io.BytesIO()
                Image.fromarray(np.zeros((8, 8), np.uint8)).save(file, "PNG")
                yield key, {"image": file, "name": f"train_{number:05d}.jpg"}

    builder = Named(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    monkeypatch.setattr(source, "prepared_builder", lambda _: builder)
    names = source.image_names(None, "train")
    assert names == ["train_00003.jpg", "train_00001.jpg", "train_00002.jpg"]
    (tmp_path / "list").write_text("train_00001.jpg 4\ntrain_00002.jpg 7\ntrain_00003.jpg 1\n")
    found = read_noise_list(tmp_path / "list", "rafdb", SEVEN, "train", names)
    assert [SEVEN[c] for c in found] == ["surprise", "happiness", "neutral"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"label_noise": "symetric", "label_noise_rate": 0.2}, "did you mean 'symmetric'"),
        ({"label_noise": "pair"}, "label_noise='pair' and config.data.label_noise_rate=0.0: set both"),
        ({"label_noise_rate": 0.2}, "label_noise_rate=0.2: set both"),
        ({"label_noise": "pair", "label_noise_rate": 1.2}, "config.data.label_noise_rate=1.2 is out of range"),
        ({"label_noise": "pair", "label_noise_rate": 0.2, "label_noise_seed": -1}, "label_noise_seed=-1 is out of"),
        (
            {"label_noise": "pair", "label_noise_rate": 0.2, "label_noise_file": "x"},
            "label_noise_file: set one of them",
        ),
        ({"label_noise": "matrix"}, "label_noise='matrix' needs config.data.label_noise_file"),
        ({"label_noise": "matrix", "label_noise_file": "no.csv"}, "no.csv is not there: .*label_noise_file"),
        ({"label_noise_file": "nowhere.txt"}, "nowhere.txt is not there: .*label_noise_file"),
        (
            {"label_noise": "pair", "label_noise_rate": 0.2, "target": "cross_entropy"},
            "config.data.target='cross_entropy' .* give label, majority, argmax",
        ),
    ],
)
def test_fields_that_do_not_fit(fields, says, tiny):
    config = tiny()
    config.data.update(fields)
    with pytest.raises(UserError, match=says) as caught:
        make_setup(config)
    assert "\n" not in str(caught.value)


def test_a_method_without_labels(tiny):
    config = tiny("psr_sr")
    config.data.update(label_noise="pair", label_noise_rate=0.2)
    with pytest.raises(UserError, match="config.data.label_noise: .* labels; leave it out"):
        make_setup(config)
