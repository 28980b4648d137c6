"""The table of emotions: every data set's codes reach the right name, and each name one index."""

import numpy as np
import pytest

from fer_jax import labels
from fer_jax.errors import UserError


def test_canonical_order():
    order = " ".join(labels.EMOTIONS)
    assert order == "neutral happiness surprise sadness anger disgust fear contempt"
    assert " ".join(labels.classes(8)) == order
    assert " ".join(labels.classes(7)) == order.removesuffix(" contempt")
    assert " ".join(labels.FERPLUS_VOTES) == f"{order} unknown NF"


@pytest.mark.parametrize("dataset", labels.CODES)
def test_codes_and_names_are_a_bijection(dataset):
    names = [labels.canonical(dataset, code) for code in labels.CODES[dataset]]
    assert len(set(names)) == len(names)
    assert set(names) <= set(labels.EMOTIONS) | labels.NOT_EMOTIONS | labels.FURTHER_CLASSES
    back = {labels.canonical(dataset, code): code for code in labels.CODES[dataset]}
    assert all(back[labels.canonical(dataset, code)] == code for code in labels.CODES[dataset])


# Every row below is written as the data set's own documents write it, in the order of its codes.
@pytest.mark.parametrize(
    ("dataset", "codes", "names"),
    [
        ("fer2013", range(7), "anger disgust fear happiness sadness surprise neutral"),
        ("rafdb", range(1, 8), "surprise fear disgust happiness sadness anger neutral"),
        ("affectnet", range(8), "neutral happiness sadness surprise fear disgust anger contempt"),
        ("ckplus", range(8), "neutral anger contempt disgust fear happiness sadness surprise"),
        ("mmi", range(1, 7), "anger disgust fear happiness sadness surprise"),
        ("dfew", range(1, 8), "happiness sadness neutral anger surprise disgust fear"),
        ("ferplus", range(8), "neutral happiness surprise sadness anger disgust fear contempt"),
        (
            "jaffe",
            ("AN", "DI", "FE", "HA", "NE", "SA", "SU"),
            "anger disgust fear happiness neutral sadness surprise",
        ),
        (
            "kdef",
            ("AF", "AN", "DI", "HA", "NE", "SA", "SU"),
            "fear anger disgust happiness neutral sadness surprise",
        ),
        ("afew", ("Angry", "Happy", "Sad"), "anger happiness sadness"),
        ("sfew", ("Angry", "Happy", "Sad"), "anger happiness sadness"),
        ("affwild2", ("Neutral", "Happiness", "Other"), "neutral happiness other"),
        ("expw", range(7), "anger disgust fear happiness sadness surprise neutral"),
        ("caer_s", ("Anger", "Happy", "Sad"), "anger happiness sadness"),
        ("mafw", ("happiness", "contempt", "anxiety"), "happiness contempt anxiety"),
        ("ferv39k", ("Happy", "Angry", "Fear"), "happiness anger fear"),
        ("oulu_casia", ("Anger", "Happiness", "Sadness"), "anger happiness sadness"),
    ],
)
def test_codes_by_name(dataset, codes, names):
    assert [labels.canonical(dataset, code) for code in codes] == names.split()


def test_the_index_of_each_code_is_that_of_its_name():
    for dataset, table in (("fer2013", labels.index_table("fer2013", 7)), ("ckplus", labels.index_table("ckplus", 7))):
        assert table.dtype == np.int64
        for code in labels.CODES[dataset]:
            name = labels.canonical(dataset, code)
            assert table[code] == (labels.NO_EMOTION if name == "contempt" else labels.EMOTIONS.index(name))
    assert labels.index_table("fer2013", 7)[6] == 0
    assert labels.index_table("rafdb")[0] == labels.index_table("affectnet")[8] == labels.NO_EMOTION


def test_every_alias_belongs_to_one_emotion():
    aliases = [alias for many in labels._ALIASES.values() for alias in many]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(labels.EMOTIONS)
    assert [labels.name_of(word) for word in ("Angry", " angered", "HAPPY", "afraid", "Surprised")] == [
        "anger", "anger", "happiness", "fear", "surprise",
    ]  # fmt: skip


def test_a_class_has_one_name_however_it_is_written():
    assert {labels.class_name(text) for text in ("e\u0301 tat", "\u00e9 tat\n", "\ufeff\u00e9  tat\u200b")} == {
        "\u00e9 tat"
    }
    assert {labels.class_name(text) for text in ("", " ", "\u200b", "\u2800", "\u3164", "\u0301", "\x07")} == {""}
    assert labels.name_of("\ufeffHappy\u200b ") == "happiness"


# As above.
@pytest.mark.parametrize(
    ("dataset", "first", "names"),
    [
        (
            "rafdb",
            1,
            "happily surprised, happily disgusted, sadly fearful, sadly angry, sadly surprised, sadly disgusted, "
            "fearfully angry, fearfully surprised, angrily surprised, angrily disgusted, disgustedly surprised",
        ),
        (
            "rafce",
            0,
            "happily surprised, happily disgusted, sadly fearful, sadly angry, sadly surprised, sadly disgusted, "
            "fearfully angry, fearfully surprised, fearfully disgusted, angrily surprised, angrily disgusted, "
            "disgustedly surprised, happily fearful, happily sad",
        ),
        (
            "cexpr",
            0,
            "fearfully surprised, happily surprised, sadly surprised, disgustedly surprised, angrily surprised, "
            "sadly fearful, sadly angry",
        ),
    ],
)
def test_compound_codes_by_name(dataset, first, names):
    assert labels.COMPOUND_CODES[dataset] == dict(enumerate(names.split(", "), first))
    assert labels.are_compound(names.split(", "))


def test_a_compound_expression_is_two_basic_ones_and_neutral_is_none():
    pairs = {name: labels.parts_of(name) for name in labels.COMPOUND_EMOTIONS}
    assert pairs["neutral"] == ()
    assert [pairs[name] for name in ("happy", "disgusted")] == [("happiness",), ("disgust",)]
    assert pairs["Sadly fearful".lower()] == labels.parts_of(" Sadly_-Fearful ") == ("sadness", "fear")
    assert {name: pairs[name] for name in ("appalled", "hatred", "awed")} == {
        "appalled": ("disgust", "anger"),
        "hatred": ("anger", "disgust"),
        "awed": ("surprise", "fear"),
    }
    assert (
        len({frozenset(parts) for parts in pairs.values() if len(parts) == 2}) == 12
    )  # the three have a pair of others
    for word in ("neutrally happy", "contemptuously angry", "happily happy", "sadly", "happily sad fearful", "", "7"):
        assert labels.parts_of(word) == (("sadness",) if word == "sadly" else None)
    assert not labels.are_compound(labels.EMOTIONS[:7])
    assert not labels.are_compound((*labels.EMOTIONS, "sadly angry"))  # contempt is no part


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labels.canonical("fer2031", 0), "did you mean 'fer2013'"),
        (lambda: labels.canonical("fer2013", 7), "fer2013 has no label code 7; known: 0, 1"),
        (lambda: labels.name_of("hapiness"), "did you mean 'happiness'"),
        (lambda: labels.classes(6), "use 7, or 8"),
    ],
)
def test_mistakes_are_told_in_one_line(call, message):
    with pytest.raises(UserError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
