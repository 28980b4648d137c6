"""KDEF's builder: names by position, people across sessions, the known defects, crops."""

from typing import Any

import fake_kdef
import fake_pictures
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import OneFace, build, refusal

from fer_jax import labels
from fer_jax.errors import UserError
from tfds_builders import registry
from tfds_builders.kdef import kdef_dataset_builder as kdef

SMALL = (60, 80)  # the size does not matter where faces are cut


@pytest.fixture(autouse=True)
def small(monkeypatch, use_detector):
    assert kdef.EACH == 140  # of 4,900: seven expressions, five angles
    monkeypatch.setattr(kdef, "EACH", fake_kdef.EACH)
    use_detector(OneFace())


@pytest.mark.parametrize("flat", [False, True])
def test_frontal_faces(tmp_path, flat):
    root = fake_kdef.make(tmp_path / "files", angles=("S",), flat=flat, size=SMALL)
    builder = build("kdef", root if flat else tmp_path / "files", tmp_path / "data", size=32)
    source = builder.as_data_source("train")
    names = [e["name"].decode() for e in source]
    assert names == sorted(names, key=lambda name: (name[1:4], name))
    for example, name in zip(source, names, strict=True):
        assert example["code"].decode() == name[4:6]
        assert example["label"] == labels.EMOTIONS.index(labels.canonical("kdef", name[4:6]))
        assert fake_kdef.PEOPLE[example["subject"]] == name[1:4]  # the same person in both sessions
        assert (example["session"].decode(), example["angle"].decode()) == (name[0], "S")
        assert example["dark"] == example["no_face"] == (name == fake_kdef.DARK)
        assert example["image"].shape == (32, 32, 3)
    assert names.count("AF31AFS") == 1
    assert source[names.index("AF31AFS")]["label"] == labels.EMOTIONS.index("fear")
    metadata = builder.info.metadata
    assert metadata["subjects"] == list(fake_kdef.PEOPLE)
    assert any("is nearly black" in line for line in builder.contents.warnings)
    assert metadata["complete"]
    assert "1 averaged faces of AKDEF" in builder.contents.found[0]


def test_all_angles_whole_with_the_known_defects(tmp_path):
    root = fake_kdef.make(tmp_path / "files", angles=("S", "HL", "FR"), sessions="A", codes=("AN", "SA"))
    data = tmp_path / "data"
    builder = build("kdef/whole", root, data, angles="FR, HL", allow_counts=True)
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    by_name = {e["name"].decode(): e for e in source}
    assert {name[6:] for name in by_name} == {"HL", "FR"}
    assert by_name["AF31SAHL"]["image"] == (root / "AF31" / "AF31V.JPG").read_bytes()
    odd = builder.as_data_source("train")[list(by_name).index("AM05ANFR")]["image"]
    assert odd.shape == (762, 562, 3)
    said = "\n".join(builder.contents.warnings)
    assert "AF31V.JPG is misnamed in the archive and read as AF31SAHL" in said
    assert "AM05ANFR.JPG: resized from 570x740 pixels" in said
    stored: Any = tfds.data_source("kdef/whole-anglesHL_FR", split="train", data_dir=str(data))
    assert stored[0]["image"].shape == odd.shape


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("AF31XXS.JPG", "has the expression XX, and they are AF, AN"),
        ("AF36ANS.JPG", "is of number 36, and they are 01 to 35"),
        ("AF31AFSS.JPG", "is not named like KDEF's pictures (AF01AFS.JPG)"),
        ("AF31afs.jpg", "AFS.JPG: remove one of them"),
    ],
)
def test_names(tmp_path, name, says):
    root = fake_kdef.make(tmp_path / "files", angles=("S",), size=SMALL)
    fake_pictures.write(root / "AF31" / name, *SMALL)
    assert says in refusal("kdef", tmp_path / "files", tmp_path)


def test_a_misnamed_picture_whose_right_name_is_there(tmp_path):
    root = fake_kdef.make(tmp_path / "files", angles=("S", "HL"), size=SMALL)
    fake_pictures.write(root / "AF31" / "AF31SAHL.JPG", *SMALL)
    assert "AF31V.JPG is a misnamed AF31SAHL, which exists as well" in refusal("kdef", tmp_path / "files", tmp_path)


def test_angles(tmp_path):
    def angles(text):
        builder: Any = registry.make_builder("kdef", str(tmp_path), angles=text)
        return builder.options.angles

    assert angles("all") == "FL_HL_S_HR_FR"
    assert angles("hr,S,hl") == angles("HL_S_HR") == "HL_S_HR"
    with pytest.raises(UserError, match="kdef has no angle 'SL'"):
        angles("S,SL")
    with pytest.raises(UserError, match="no angles are given"):
        angles(" ")


def test_a_face_is_cut_where_it_is(tmp_path):
    from tfds_builders import face_crops

    photo = np.full((80, 60, 3), 90, np.uint8)
    photo[20:50, 15:45] = (200, 0, 0)  # the box that the detector says
    face, found = face_crops.face_or_square(photo, size=60, margin=-0.25, detector=OneFace())
    assert found
    assert (face == (200, 0, 0)).all()  # with so tight a margin nothing else is seen
    wide, _ = face_crops.face_or_square(photo, size=60, margin=0.5, detector=OneFace())
    assert (wide[0] != (200, 0, 0)).any()
    dark, found = face_crops.face_or_square(photo // 16, size=60, margin=0.0, detector=OneFace())
    assert not found
    np.testing.assert_array_equal(dark, photo[10:70] // 16)  # the middle square, in its own size


def test_nothing_is_left(tmp_path):
    fake_kdef.make(tmp_path / "files", angles=("S",), size=SMALL)
    said = refusal("kdef/whole", tmp_path / "files", tmp_path, allow_missing=99)
    assert "all examples are missing" in said
