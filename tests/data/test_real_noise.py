"""Labels of FER-2013 itself against FER+'s votes, transition matrices, and classes that are left out."""

import types

import numpy as np
import pytest

from fer_jax.data.sources import source
from fer_jax.data.sources.source import Source
from fer_jax.data.targets import matrices
from fer_jax.data.targets.label_noise import with_label_noise
from fer_jax.data.targets.labeled import attach_targets, without_classes
from fer_jax.data.targets.matrices import transition_matrix
from fer_jax.errors import UserError
from fer_jax.labels import index_table
from fer_jax.training.setup import make_setup

N = 7_000


def as_ferplus(real_data):
    """The fields of ferplus' training split that do not need its pictures, from the packed files."""
    packed = np.load(real_data / "fer2013_unique_png.npz")
    train, picture = packed["usage"] == 0, packed["unique_index"]
    return {
        "votes_label": packed["ferplus_label_votes"][train],
        "has_label": packed["ferplus_in_label_csv"][train],
        "fer2013_label": index_table("fer2013", 7)[packed["emotion"]][train],
        "number": packed["ferplus_image_number"][train],
        "black": (picture == picture[6458])[train],
        "leaked": np.isin(picture, picture[~train])[train],
        "row": np.flatnonzero(train),
    }


def real_noise(arrays):
    """The training source of FER-2013's labels on FER+'s majority without contempt, and its record."""
    arrays, names = attach_targets(arrays, (), rule="majority", votes="votes_label", training=True)
    arrays, names = without_classes(arrays, names, ("contempt",))
    arrays = source._without(arrays, ("black", "leaked"), "ferplus")
    data = types.SimpleNamespace(label_noise="fer2013", label_noise_file="")
    return with_label_noise(Source("ferplus", "train", names, arrays, arrays["row"]), data)


def counted(arrays):
    table = np.zeros((7, 7), int)
    np.add.at(table, (arrays["clean_label"], arrays["label"]), 1)
    return table


def test_fer2013s_labels_against_the_votes(real_data):
    arrays = as_ferplus(real_data)
    noisy, record = real_noise(arrays)
    assert (record["examples"], record["changed"]) == (24_325, 7_829)
    np.testing.assert_array_equal(counted(noisy.arrays), matrices.FER2013)
    np.testing.assert_array_equal(noisy.arrays["target"], np.eye(7)[noisy.arrays["label"]])
    # Four pairs of pictures share a name, and label.csv has one of each. Joined by name the other ones have votes too.
    for number in np.unique(arrays["number"]):
        same = np.flatnonzero((arrays["number"] == number) & (number >= 0))
        if len(same) == 2:
            arrays["votes_label"][same] = arrays["votes_label"][same[arrays["has_label"][same]]]
            arrays["has_label"][same] = True
    by_name, record = real_noise(arrays)
    assert record["examples"] == 24_328
    assert 1 - record["changed_share"] == pytest.approx(0.6781, abs=5e-5)
    shares = counted(by_name.arrays) / counted(by_name.arrays).sum(axis=1, keepdims=True)
    assert shares[0].round(4).tolist() == [0.4636, 0.0369, 0.0179, 0.2406, 0.1138, 0.0030, 0.1241]
    assert shares.diagonal().round(4).tolist() == [0.4636, 0.9010, 0.7435, 0.6066, 0.7749, 0.7624, 0.8118]


def in_matrix(tmp_path, text, names=("anger", "fear", "neutral"), suffix="csv"):
    path = tmp_path / f"matrix.{suffix}"
    path.write_text(text)
    return transition_matrix(str(path), names, "config.data.label_noise_file")


def test_labels_drawn_by_a_matrix_file(tmp_path):
    table = "truth,fear,anger,Neutral\nfear,.5,.5,0\nangry,.1,.7,.2\nneutral,0,0,1\n"
    matrix = in_matrix(tmp_path, table)
    np.testing.assert_allclose(matrix, [[0.7, 0.1, 0.2], [0.5, 0.5, 0], [0, 0, 1]])
    stored = '{"classes": ["neutral", "fear", "anger"], "matrix": [[1, 0, 0], [0, 0.5, 0.5], [0.2, 0.1, 0.7]]}'
    np.testing.assert_allclose(in_matrix(tmp_path, stored, suffix="json"), matrix)
    labels = (np.arange(N) % 3).astype(np.int32)
    images = Source("x", "train", ("anger", "fear", "neutral"), {"label": labels}, np.arange(N))
    data = types.SimpleNamespace(
        label_noise="matrix", label_noise_file=str(tmp_path / "matrix.csv"), label_noise_seed=0
    )
    noisy, record = with_label_noise(images, data)
    for y in range(3):
        counts = np.bincount(noisy.arrays["label"][labels == y], minlength=3)
        np.testing.assert_allclose(counts / counts.sum(), matrix[y], atol=0.03)
    np.testing.assert_allclose(record["matrix"], matrix)
    data.label_noise_file = "fer2013"
    with pytest.raises(UserError, match="label_noise_file='fer2013' .* has anger, fear, neutral: .*drop_classes"):
        with_label_noise(images, data)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("x,anger,fear,neutral\nanger,1,0,0\nfear,0,1,0\nneutral,0,.5,.4\n", "row of neutral has the sum 0.9"),
        ("x,anger,fear,neutral\nanger,1,0,0\nfear,-.5,1.5,0\nneutral,0,0,1\n", "row of fear .* smallest number -0.5"),
        ("x,anger,fear,neutral\nanger,1,0,0\nneutral,0,0,1\nfear,0,1,0\n", "same classes in the same order"),
        (
            "x,anger,fear\nanger,1,0\nfear,0,1\n",
            "matrix of the classes anger, fear, but the data set has",
        ),
        ("x,anger,fear,neutral\nanger,1,0\nfear,0,1,0\nneutral,0,0,1\n", "is not a transition matrix"),
        ("x,anger,fear,neutral\nanger,1,0,a\nfear,0,1,0\nneutral,0,0,1\n", "is not a transition matrix"),
        ("", "is not a transition matrix"),
    ],
)
def test_a_matrix_that_is_not_as_it_should_be(table, says, tmp_path):
    with pytest.raises(UserError, match=says) as caught:
        in_matrix(tmp_path, table)
    assert "\n" not in str(caught.value)


def test_labels_of_fer2013_that_are_absent(tiny):
    config = tiny()
    config.data.label_noise = "fer2013"
    with pytest.raises(UserError, match="synthetic_faces/basic does not store FER-2013"):
        make_setup(config)


def test_classes_are_left_out_of_every_split(tiny):
    config = tiny()
    whole = make_setup(config)
    config.data.drop_classes = ("neutral", "fear")
    setup = make_setup(config)
    assert setup.train.classes == ("happiness", "surprise", "sadness", "anger", "disgust")
    assert setup.validation.classes == setup.train.classes
    counts = dict(zip(whole.train.classes, whole.train.class_counts(), strict=True))
    assert setup.train.class_counts().tolist() == [counts[name] for name in setup.train.classes]
    votes = setup.train.arrays["vote_target"].sum(axis=1)
    np.testing.assert_allclose(votes[votes > 0], 1, rtol=1e-6)
    config.data.drop_classes = ("awe",)
    with pytest.raises(UserError, match="config.data.drop_classes: there is no class 'awe'"):
        make_setup(config)
