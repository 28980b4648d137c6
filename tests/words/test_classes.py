"""Class vectors by name: order, sets of words, the table of a run, and what is refused."""

import json
import shutil

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.labels import COMPOUND_EMOTIONS, EMOTIONS
from fer_jax.words.classes import SHIPPED, WORD_SETS, class_vectors
from fer_jax.words.readers import read_vectors

FER2013_CSV = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
ALPHABETICAL = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
MINILM = str(SHIPPED["minilm"])


def write(folder, words, dimension=4):
    rng = np.random.default_rng(1)
    path = folder / "vectors.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, rng.normal(size=dimension)))}\n" for word in words))
    return str(path)


@pytest.mark.parametrize(("classes", "row"), [(FER2013_CSV, 6), (ALPHABETICAL, 4), (EMOTIONS, 0)])
def test_rows_follow_the_names_of_the_data_set(classes, row):
    """Check 4. The seed's list is alphabetical, FER-2013's codes are not: by position, neutral would be surprise."""
    table = class_vectors("minilm", "seed", classes)
    neutral = read_vectors(MINILM, ["neutral"])["neutral"]
    assert [place for place, vector in enumerate(table.vectors) if np.array_equal(vector, neutral)] == [row]
    by_position = class_vectors("minilm", "seed", ALPHABETICAL).vectors  # the seed's mistake
    if classes != ALPHABETICAL:
        assert not np.array_equal(by_position[row], neutral)


def test_the_shipped_table():
    """Real words: sad is nearer to angry than to happy, and the same emotion's two forms are nearest of all."""
    table = class_vectors("minilm", "both", EMOTIONS)
    assert np.asarray(table.vectors).shape == (8, 384)
    v = read_vectors(MINILM, ["happy", "happiness", "sad", "sadness", "angry", "anger"])
    v = {word: vector / np.linalg.norm(vector) for word, vector in v.items()}
    assert v["sad"] @ v["sadness"] > v["sad"] @ v["angry"]
    assert v["happy"] @ v["happiness"] > v["happy"] @ v["anger"]
    np.testing.assert_allclose(table.vectors[1], (v["happy"] + v["happiness"]) / 2, atol=1e-6)


@pytest.mark.parametrize("words", WORD_SETS)
def test_every_set_names_every_class(words, tmp_path):
    assert set(WORD_SETS[words]) == set(EMOTIONS)
    everything = sorted({word for chosen in WORD_SETS[words].values() for word in chosen})
    assert len(everything) == sum(map(len, WORD_SETS[words].values()))  # no word for two classes
    path = write(tmp_path, everything)
    table = class_vectors(path, words, EMOTIONS)
    raw = read_vectors(path, everything)
    for emotion, vector in zip(EMOTIONS, table.vectors, strict=True):
        mean = np.mean([raw[word] for word in WORD_SETS[words][emotion]], axis=0)
        np.testing.assert_allclose(vector, mean, rtol=1e-6)


def test_the_table_of_a_run_is_the_same_table(tmp_path):
    table = class_vectors("minilm", "nouns", FER2013_CSV)
    path = tmp_path / "class_vectors.json"
    path.write_text(json.dumps(table.as_json()))
    assert class_vectors(str(path), "nouns", FER2013_CSV) == table
    assert table.summary()["sha256"] == json.loads(path.read_text())["sha256"]
    turned = class_vectors(str(path), "nouns", EMOTIONS[:7])
    assert turned == class_vectors("minilm", "nouns", EMOTIONS[:7])
    assert turned.sha256() != table.sha256()

    with pytest.raises(UserError, match="not a table of class vectors of .*contempt"):
        class_vectors(str(path), "nouns", EMOTIONS)
    changed = json.loads(path.read_text())
    changed["vectors"][0][0] += 0.5
    path.write_text(json.dumps(changed))
    with pytest.raises(UserError, match="SHA-256"):
        class_vectors(str(path), "nouns", FER2013_CSV)
    for content in ("{", "[]", '{"classes": 3}'):
        path.write_text(content)
        with pytest.raises(UserError, match="config.model.vectors"):
            class_vectors(str(path), "nouns", FER2013_CSV)


def test_tables_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    table = class_vectors("minilm", "nouns", FER2013_CSV)
    (tmp_path / "table.json").write_text(json.dumps(table.as_json()))
    assert class_vectors("~/table.json", "nouns", FER2013_CSV) == table
    shutil.copy(MINILM, tmp_path / "table.csv")
    assert class_vectors("~/table.csv", "nouns", FER2013_CSV).vectors == table.vectors


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="config.model.words='noun': did you mean 'nouns'"):
        class_vectors("minilm", "noun", EMOTIONS)
    with pytest.raises(UserError, match=r"shipped table 'minilm' has no vector for 'afraid'.* words \(seed, nouns"):
        class_vectors("minilm", "synonyms", EMOTIONS)
    with pytest.raises(UserError, match="vectors.txt has no vector for 'contempt', which config.model.words='seed'"):
        class_vectors(write(tmp_path, [*FER2013_CSV]), "seed", EMOTIONS)
    with pytest.raises(UserError, match="'happily surprised' is a compound emotion"):
        class_vectors("minilm", "seed", COMPOUND_EMOTIONS)
    with pytest.raises(UserError, match="'bored'"):
        class_vectors("minilm", "seed", ("bored",))
    path = tmp_path / "same.txt"
    path.write_text("".join(f"{word} 1.0 2.0 3.0\n" for word in FER2013_CSV))
    with pytest.raises(UserError, match="'angry' and 'disgust' have the same vector"):
        class_vectors(str(path), "seed", FER2013_CSV)
    for broken in ("0.0 0.0 0.0", "nan 1.0 2.0"):
        path.write_text("x 1.0 2.0 3.0\n" + "".join(f"{word} {broken}\n" for word in FER2013_CSV))
        with pytest.raises(UserError, match="'angry'.* finite"):
            class_vectors(str(path), "seed", FER2013_CSV)
