"""The builder of a user's own faces: folders or a table, classes known from the files, crops, training by its name."""

import pickle
from typing import Any

import fake_pictures
import numpy as np
import pytest
import tensorflow_datasets as tfds
from building import OneFace, build, refusal
from etils import epath

from fer_jax.data.sources import source as loading
from fer_jax.errors import UserError
from fer_jax.training import loop
from fer_jax.training.examples import read_examples
from tfds_builders import __main__ as command
from tfds_builders import registry
from tfds_builders.image_folder import image_folder_dataset_builder as image_folder
from tfds_builders.image_folder.rows import classes_of


def make(folder, classes=("happy", "Sad", "neutral"), splits=("train", "test"), each=2, size=(40, 30)):
    for split in splits:
        for word in classes:
            for k in range(each):
                fake_pictures.write(folder / split / word / f"{k} {word}.jpg", *size)
    return folder


def table(folder, *rows, header="path,label", name="faces.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([header, *rows]), encoding="utf-8")
    return folder / name


def test_folders_are_known_by_their_name_from_then_on(tmp_path):
    files, data = make(tmp_path / "my files"), str(tmp_path / "data")
    arguments = ["build", "image_folder", "--option=name=mine", "--manual_dir", str(files), "--data_dir", data]
    assert command.main(arguments) == 0
    make(tmp_path / "others", classes=("cat", "dog", "10", "9"), splits=("",))
    assert (
        command.main([*arguments[:2], "--option=name=pets", "--manual_dir", str(tmp_path / "others"), *arguments[-2:]])
        == 0
    )
    raw = {"image": tfds.decode.SkipDecoding()}
    mine: Any = tfds.data_source("image_folder/mine", split="test", data_dir=data, decoders=raw)
    assert [e["name"].decode() for e in mine][:2] == ["test/Sad/0 Sad.jpg", "test/Sad/1 Sad.jpg"]
    assert mine[0]["image"] == (files / "test" / "Sad" / "0 Sad.jpg").read_bytes()
    again: Any = registry.make_builder("image_folder/mine", data)
    assert again.classes == ("neutral", "happiness", "sadness")  # the canonical order
    assert again.info.features["image"].shape == (30, 40, 3)
    assert [again.classes[e["label"]] for e in mine] == ["sadness"] * 2 + ["happiness"] * 2 + ["neutral"] * 2
    whole: Any = image_folder.Builder(config="mine", data_dir=data).as_data_source("train")
    assert whole[0].keys() == mine[0].keys()
    pets: Any = registry.make_builder("image_folder", data, name="pets")
    assert pets.classes == ("9", "10", "cat", "dog")
    assert set(pets.info.splits) == {"train"}
    assert "subject" not in pets.info.features


def test_training_reads_it_by_name(tmp_path, tiny, capsys):
    files = make(tmp_path / "files", classes=("cat", "dog"), each=12, size=(64, 64))
    data = str(tmp_path / "data")
    config = tiny("baseline", max_steps=2)
    config.data.update(dataset="image_folder/pets", data_dir=data)
    config.data.builder = {}
    with pytest.raises(UserError, match=rf"build image_folder/pets --manual_dir=FOLDER --data_dir={data}`"):
        loading.load(config.data, "train", training=True)
    build("image_folder/pets", files, data)
    loaded = loading.load(config.data, "train", training=True)
    assert loaded.classes == ("cat", "dog")
    assert loaded.arrays["image"].shape == (24, 64, 64, 3)
    assert loaded.class_counts().tolist() == [12, 12]
    training, held_out = loading.split_off(loaded, 0.25, seed=0)
    assert held_out.class_counts().tolist() == [3, 3]
    assert training.classes == ("cat", "dog")


def test_people_are_learned_from_their_folders(tmp_path, tiny):
    """The layout of VGGFace2 and MS-Celeb-1M crops: a folder for each person, and one split."""
    files, data = tmp_path / "train", str(tmp_path / "data")
    for person in ("n000002", "n000029", "m.01_2n"):
        for number in range(1, 7):
            fake_pictures.write(files / person / f"{number:04}_01.jpg", 60 + number, 80)
    build("image_folder/identities", files, data, size=32)
    config = tiny("face_identity", "folder", max_steps=2)
    config.data.data_dir, config.data.folds = data, "examples:6"
    config.model.width, config.train.batch_size = 8, 4
    results = loop.train(config, epath.Path(tmp_path / "run"))
    assert results["classes"] == ["m.01_2n", "n000002", "n000029"]
    assert results["support"] == [1, 1, 1]  # a sixth of each person's pictures
    assert results["training_examples"] == 15


def test_people_who_cannot_be_tested_are_reported(tmp_path, tiny):
    """One picture of each; the two splits of VGGFace2, which show different people; one person who is tested alone."""
    once, apart, data = tmp_path / "once", tmp_path / "apart", str(tmp_path / "data")
    for number in range(4):
        fake_pictures.write(once / f"n{number}" / "a.jpg", 32, 32)
        fake_pictures.write(apart / ("train" if number % 2 else "test") / f"n{number}" / "a.jpg", 32, 32)
    build("image_folder/identities", once, data)
    config = tiny("face_identity", "folder")
    config.data.data_dir, config.data.folds = data, "examples:2"
    with pytest.raises(UserError, match="no class of the 2 tested examples .* occurs in the training folds"):
        read_examples(config)
    told = refusal("image_folder/apart", apart, tmp_path)
    assert "no class of the split test is in train" in told
    for number in range(40):
        fake_pictures.write(apart / "train" / f"p{number}" / "a.jpg", 32, 32)
    fake_pictures.write(apart / "test" / "n1" / "a.jpg", 32, 32)
    (warning,) = [line for line in build("image_folder/some", apart, data).contents.warnings if "none in" in line]
    assert warning == "class 'n0' has 1 in test and none in train, and so on for 43 classes"


def test_building_anew_and_other_options(tmp_path, capsys):
    files, data = make(tmp_path / "files"), str(tmp_path / "data")
    build("image_folder/mine", files, data)
    given = ["build", "image_folder/mine", "--option=size=16", "--manual_dir", str(files), "--data_dir", data]
    assert command.main(given) == 2
    assert "is prepared with size=0, not 16: build it again with --overwrite" in capsys.readouterr().err
    with pytest.raises(UserError, match="is prepared with size=0, not 16: leave that option out"):
        registry.make_builder("image_folder/mine", data, size=16).as_data_source("train")
    (files / "train" / "happy").rename(files / "train" / "joyless")
    assert command.main([*given, "--overwrite"]) == 0
    assert "classes that are not emotions: 'joyless'; so all" in capsys.readouterr().out
    again: Any = registry.make_builder("image_folder/mine", data)
    assert again.classes == ("Sad", "happy", "joyless", "neutral")
    assert again.as_data_source("train")[0]["image"].shape == (16, 16, 3)


def test_another_process_knows_the_classes(tmp_path):
    files = make(tmp_path / "files", splits=("train",))
    builder: Any = registry.make_builder("image_folder/mine", str(tmp_path / "data"))
    builder.contents = builder.read(files)
    other = pickle.loads(pickle.dumps(builder))
    assert other.classes == builder.classes
    item = builder.contents.items["train"][0]
    mine, theirs = (one.info.features.serialize_example(one.example(item)[0]) for one in (builder, other))
    assert mine == theirs


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (("a.jpg", "happy/a.jpg"), "does not arrange its pictures by class (a.jpg, happy/a.jpg)"),
        (("happy/a.jpg", "train/happy/a.jpg"), "does not arrange its pictures by class"),
        (("train/happy/a.jpg", "test/happy/deep/a.jpg"), "does not arrange its pictures by class"),
        (("train/happy/a.jpg",), "has one class, 'happiness'"),
        (("happy/a.jpg", "sad/a.mpo"), "left out: 1 .mpo; "),
        (("1st/happy/a.jpg", "1st/sad/b.jpg"), "names the split '1st', which may have letters, digits and _ only"),
        (("all/happy/a.jpg", "all/sad/b.jpg"), "names the split 'all', which means every split together"),
        (("happy/train/a.jpg", "sad/train/b.jpg"), "names the split 'happy', which is an emotion"),
        (("train/a.jpg", "test/b.jpg"), "has 'test' and 'train' in place of classes"),
        (tuple(f"s{i}/{word}/a.jpg" for i in range(101) for word in ("cat", "dog")), "has 101 splits ('s0', 's1', "),
        (("train/cat/a.jpg", "train/\u200b/a.jpg"), "has a name without a visible character: rename it"),
        ((), "holds no pictures, 4 folders deep: arrange them as <split>/<class>/a.jpg"),
    ],
)
def test_folders_that_are_none(tmp_path, paths, says):
    (tmp_path / "files").mkdir()
    for path in paths:
        fake_pictures.write(tmp_path / "files" / path, 20, 20)
    assert says in refusal("image_folder", tmp_path / "files", tmp_path)


def test_what_lies_beside_is_told_or_ignored(tmp_path):
    files = make(tmp_path / "outer" / "files", classes=("happy", "Happiness", "печаль"), each=1)
    for name in ("train/happy/.DS_Store", "train/happy/Thumbs.db", "train/happy/._0 happy.jpg", "../readme.txt"):
        (files / name).write_bytes(b"x")
    (files / "__MACOSX" / "x").mkdir(parents=True)
    (files / "train" / "empty").mkdir()
    (files / "train" / "happy" / "a.heic").write_bytes(b"x")
    builder = build("image_folder", tmp_path / "outer", tmp_path / "data")  # one folder around it does no harm
    warnings = "\n".join(builder.contents.warnings)
    assert "files/train/empty holds no picture" in warnings
    assert "left out: 1 .heic" in warnings
    assert "pictures of 40x30 pixels are not square" in warnings
    assert builder.classes == ("Happiness", "happy", "печаль")
    again: Any = registry.make_builder("image_folder", str(tmp_path / "data"))
    assert again.classes == builder.classes
    (files / "train" / "печаль").rename(files / "train" / "sad")
    (files / "test" / "печаль").rename(files / "test" / "sad")
    builder = build("image_folder/two", tmp_path / "outer", tmp_path / "data")
    assert builder.classes == ("happiness", "sadness")
    assert "'Happiness' and 'happy' are one class, happiness" in builder.contents.warnings


def test_one_class_under_several_spellings(tmp_path):
    """Archives made on macOS hold decomposed names, tables and other systems composed ones."""
    composed, decomposed = "joy\u00e9", "joye\u0301"
    files = tmp_path / "files"
    for path in (f"train/{composed}/a.jpg", f"test/{decomposed}/b.jpg", "train/Cat/a.jpg", "test/cat/b.jpg"):
        fake_pictures.write(files / path, 20, 20)
    fake_pictures.write(files / "train" / "dog" / "a.jpg", 20, 20)
    builder = build("image_folder/folders", files, tmp_path / "data")
    assert builder.classes == ("Cat", "dog", composed)
    warnings = "\n".join(builder.contents.warnings)
    assert "'Cat' and 'cat' are one class, Cat" in warnings
    assert "class 'dog' has 1 in train and none in test" in warnings
    rows = [f"train/{decomposed}/a.jpg,\u200b{decomposed} ", f"test/{composed}/b.jpg,{composed}", "train/dog/a.jpg,dog"]
    table(files, *rows)
    builder = build("image_folder/rows", files, tmp_path / "data")
    assert builder.classes == ("dog", composed)
    assert len(builder.as_data_source("train")) == 3


def test_compound_expressions_by_name_or_code(tmp_path, capsys):
    words = ("Sadly Angry", "happily sad", "Appalled", "happy", "Neutral", "surprise")
    make(tmp_path / "files", classes=words, splits=("",))
    builder = build("image_folder/pairs", tmp_path / "files", tmp_path / "data")
    assert builder.classes == ("neutral", "happy", "surprised", "sadly angry", "appalled", "happily sad")
    assert "not emotions" not in capsys.readouterr().out
    for code in ("8", "0", "13"):  # of RAF-CE
        fake_pictures.write(tmp_path / "coded" / f"{code}.jpg", 40, 30)
    path = table(tmp_path / "coded", "8.jpg,8", "0.jpg,0", "13.jpg,13")
    builder = build("image_folder/coded", tmp_path / "coded", tmp_path / "data", compound_codes="rafce")
    assert builder.classes == ("happily surprised", "fearfully disgusted", "happily sad")
    assert builder.classes[builder.as_data_source("train")[0]["label"]] == "fearfully disgusted"
    table(tmp_path / "coded", "8.jpg,8", "0.jpg,14")
    assert "has the class '14', and the codes of rafce are 0 to 13" in refusal(
        "image_folder/other", path.parent, tmp_path / "data", compound_codes="rafce"
    )


def test_spellings_of_compound_expressions():
    found = classes_of(["happily_surprised", "Hatred", "angrily-disgusted", "happy surprised", "sadly_happy"])
    assert found.names == ("happily surprised", "angrily disgusted", "hatred", "sadly happy")
    assert found.warnings == ("'happily_surprised' and 'happy surprised' are one class, happily surprised",)
    (warning,) = classes_of(["happily surprised", "sadly angri", "awed"]).warnings
    assert "not compound expressions: 'sadly angri'; so" in warning
    for twice in ("surprised happily", "happily surprised"), ("sadly happy", "happily sad"):
        with pytest.raises(UserError, match="are the same two emotions"):
            classes_of(twice)


def test_the_same_picture_twice(tmp_path, capsys):
    files, data = tmp_path / "files", str(tmp_path / "data")
    for path in ("train/sad/a.jpg", "train/happy/b.jpg", "test/sad/c.jpg", "test/happy/copy.jpg"):
        fake_pictures.write(files / path, 20, 20)
    (files / "test" / "happy" / "copy.jpg").write_bytes((files / "train" / "sad" / "a.jpg").read_bytes())
    builder = build("image_folder/copies", files, data)
    warnings = "\n".join(builder.contents.warnings)
    assert "1 pictures or clips are stored in several splits, such as" in warnings
    assert "1 pictures or clips are stored with different labels" in warnings
    rows = [
        "test/happy/copy.jpg,happy,train,0,0,9,9",
        "test/happy/copy.jpg,happy,test,5,5,9,9",
        "test/sad/c.jpg,sad,train,,,,",
    ]
    table(files, *rows, header="path,label,split,x,y,w,h")
    builder = build("image_folder/faces", files, data, crop="square", size=8)
    assert "1 files have examples in train and in test" in "\n".join(builder.contents.warnings)
    assert command.main(["verify", "image_folder/faces", "--data_dir", data]) == 0
    assert "note: when it was built: 1 files have examples in train and in test" in capsys.readouterr().out


def test_sizes_that_differ(tmp_path, use_detector):
    use_detector(OneFace())
    files = make(tmp_path / "files", splits=("train",))
    fake_pictures.write(files / "train" / "happy" / "big.jpg", 60, 100)
    said = refusal("image_folder", files, tmp_path)
    assert "1 happy.jpg has 40x30 pixels" in said or "has 40x30 pixels, train/happy/big.jpg 60x100" in said
    assert "--option=size=112" in said
    shown = {}
    for crop in image_folder.CROPS:
        source = build(f"image_folder/{crop}", files, tmp_path / "data", crop=crop, size=20).as_data_source("train")
        shown[crop] = next(e for e in source if e["name"] == b"train/happy/big.jpg")
        assert shown[crop]["image"].shape == (20, 20, 3)
    assert shown["none"]["image"][:, :3].max() < 25  # whole, with bars of black at its sides
    assert shown["square"]["image"][:, 0].max() > 25
    assert np.abs(shown["square"]["image"].astype(int) - shown["faces"]["image"]).mean() > 2
    assert not shown["faces"]["no_face"]
    assert "no_face" not in shown["square"]


def test_a_table(tmp_path, use_detector):
    use_detector(OneFace())
    files = tmp_path / "files"
    for name in ("a.jpg", "b.jpg", "c.jpg", "left.jpg"):
        fake_pictures.write(files / "pictures" / name, 40, 30)
    rows = [
        "test;pictures/a.jpg;Angry;zoe;;;;;1",
        'train;"pictures/b.jpg";sad;abel;0;0;20;20;2',
        "train;pictures\\c.jpg;anger;zoe;5;5;20;20;3",
    ]
    path = table(files, *rows, header="split;Path;Label;subject;x;y;w;h;age")
    builder = build("image_folder", files, tmp_path / "data", crop="square", size=20)
    train = builder.as_data_source("train")
    assert [e["name"].decode() for e in train] == ["pictures/b.jpg", "pictures/c.jpg"]
    assert [e["code"].decode() for e in train] == ["sad", "anger"]
    assert [builder.classes[e["label"]] for e in train] == ["sadness", "anger"]
    assert [e["subject"] for e in train] == [0, 1]
    assert builder.info.metadata["subjects"] == ["abel", "zoe"]
    assert builder.as_data_source("test")[0]["subject"] == 1
    photo = np.asarray(fake_pictures.Image.open(files / "pictures" / "b.jpg")).astype(int)
    assert np.abs(photo[:20, :20] - train[0]["image"]).mean() < 4
    warnings = "\n".join(builder.contents.warnings)
    assert "other columns are not used (age)" in warnings
    assert "1 pictures in the same folders are not in it" in warnings
    fed = registry.make_builder("image_folder", str(tmp_path / "data")).info.features
    assert fed["subject"].np_dtype == np.int64
    (files / "other.csv").write_text(path.read_text())
    assert "holds faces.csv, other.csv: name the table" in refusal("image_folder", files, tmp_path)
    build("image_folder/chosen", files, tmp_path / "data", table="other.csv")
    assert "tabel.csv is not there" in refusal("image_folder", files, tmp_path, table="tabel.csv")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (("a.jpg,happy", "b.jpg,"), "faces.csv:3 has no label: fill it in"),
        (("a.jpg,happy", "b.jpg"), "faces.csv:3 has 1 cells, and the header 2"),
        (("a.jpg,happy", "a.jpg,sad"), "faces.csv:3 names a.jpg a second time"),
        (("a.jpg,happy", "b.txt,sad"), "faces.csv:3 names b.txt, whose ending is not that of a picture"),
        (("a.jpg,happy", "gone.jpg,sad"), "gone.jpg is in faces.csv and is not there"),
    ],
)
def test_rows_of_the_table(tmp_path, rows, says):
    table(tmp_path / "files", *rows)
    for name in ("a.jpg", "b.jpg"):
        fake_pictures.write(tmp_path / "files" / name, 20, 20)
    assert says in refusal("image_folder", tmp_path / "files", tmp_path)


@pytest.mark.parametrize(
    ("header", "row", "says"),
    [
        ("file,label", "a.jpg,sad", "begins with 'file,label', but the first row must name the columns path,label"),
        ("path,label,label", "a.jpg,sad,sad", "has the column 'label' twice"),
        ("path,label,x,y", "a.jpg,sad,1,2", "has only x, y of a face's box: give all of x, y, w, h"),
        ("path,label,x,y,w,h", "a.jpg,sad,1,2,3,0", "has the box 1, 2, 3, 0, which must be four numbers"),
        ("path,label,x,y,w,h", "a.jpg,sad,1,2,,", "which must be four numbers"),
        ("path,label,split", "a.jpg,sad,", "has no split: fill it in, or leave the column split out"),
        ("path,label,split", "a.jpg,sad,all", "names the split 'all'"),
        ("path,label,subject", "a.jpg,sad,", "has no subject: fill it in, or leave"),
    ],
)
def test_headers_and_cells(tmp_path, header, row, says):
    table(tmp_path / "files", row, header=header)
    fake_pictures.write(tmp_path / "files" / "a.jpg", 20, 20)
    assert says in refusal("image_folder", tmp_path / "files", tmp_path)


def test_a_box_outside_and_broken_pictures(tmp_path):
    files = tmp_path / "my files"
    table(files, "a b.jpg,sad,50,5,9,9", "c.jpg,happy,0,0,9,9", "d.jpg,happy,0,0,9,9", header="path,label,x,y,w,h")
    for name in ("a b.jpg", "c.jpg", "d.jpg"):
        fake_pictures.write(files / name, 40, 30)
    fake_pictures.truncated(files / "c.jpg")
    said = refusal("image_folder", files, tmp_path, crop="faces", size=16)
    assert "a b.jpg has 40x30 pixels, and its box (50, 5, 9, 9) is outside: correct the box" in said
    assert "c.jpg is damaged" in said
    builder = build("image_folder", files, tmp_path / "data", crop="faces", size=16, allow_missing=2)
    assert builder.info.metadata["missing"] == ["a b.jpg", "c.jpg"]
    assert not builder.as_data_source("train")[0]["no_face"]  # random pixels: the box is the face


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"crop": "sqare"}, "crop='sqare' is not one of its values: did you mean 'square'"),
        ({"crop": "faces"}, "size=0 must be from 1 to 1024"),
        ({"name": "my set"}, "the name 'my set' must begin with a letter"),
        ({"sise": 3}, "no option 'sise'"),
    ],
)
def test_options(tmp_path, options, says):
    with pytest.raises(UserError) as error:
        registry.make_builder("image_folder", str(tmp_path), **options)
    assert says in str(error.value)
    with pytest.raises(UserError, match="has two names, 'one' and 'two'"):
        registry.make_builder("image_folder/one", str(tmp_path), name="two")
