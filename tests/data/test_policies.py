"""Augmentation policies: operations as Pillow's, tables and draws as published, faces within their limits."""

import functools
import hashlib
import io
import itertools
import types

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from experiments import baseline, geometry
from fer_jax.config.check import check_config
from fer_jax.data.augment import pillow, policies
from fer_jax.data.augment.augmentation import Augmentation, augment
from fer_jax.data.augment.pillow import NUMBER, OPERATIONS
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.errors import UserError
from fer_jax.training import setup

KEY = jax.random.key(3)
BATCH = 128
FACTORS = (0.01, 0.1, 0.55, 1.0, 1.27, 1.9, 1.99)
VALUES = {
    "shear_x": (0.0, 0.02, 0.3, -0.13, 0.99),
    "translate_x": (0.0, 5.9, -21.7, 32.0, 48.0),
    "rotate": (0.0, 30.0, -3.3, 17.77, 135.0),
    "posterize": (8.0, 7.0, 4.0, 1.0),
    "solarize": (255.0, 113.3, 0.0),
}
VALUES |= {"shear_y": VALUES["shear_x"], "translate_y": VALUES["translate_x"]}
VALUES |= dict.fromkeys(("brightness", "color", "contrast", "sharpness"), FACTORS)


@functools.partial(jax.jit, static_argnums=3)
def operated(planes, operations, values, bilinear):
    return jax.vmap(functools.partial(pillow.apply, bilinear=bilinear))(planes, operations, values)


def ours(images, operations, values, bilinear=False):
    """The images uint8 [N, H, W, C] after an operation each, in batches of one size: one program."""
    out = []
    for first in range(0, len(images), BATCH):
        part = [np.resize(x[first : first + BATCH], (BATCH, *x.shape[1:])) for x in (images, operations, values)]
        planes = np.moveaxis(part[0], -1, 1).astype(np.float32)
        out.append(np.moveaxis(operated(planes, part[1], part[2].astype(np.float32), bilinear), 1, -1))
    return np.concatenate(out)[: len(images)]


def theirs(image, name, value, bilinear=False):
    """The same by Pillow, as torchvision calls it."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    way = Image.Resampling.BILINEAR if bilinear else Image.Resampling.NEAREST
    affine = {
        "shear_x": (1, value, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, value, 1, 0),
        "translate_x": (1, 0, -int(value), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -int(value)),
    }
    if name in affine:
        changed = picture.transform(picture.size, Image.Transform.AFFINE, affine[name], way)
    elif name == "rotate":
        changed = picture.rotate(value, way)
    elif name in ("brightness", "color", "contrast", "sharpness"):
        changed = getattr(ImageEnhance, name.capitalize())(picture).enhance(value)
    elif name == "identity":
        changed = picture
    else:
        argument = {"posterize": (int(value),), "solarize": (value,)}.get(name, ())
        changed = getattr(ImageOps, name)(picture, *argument)
    return np.asarray(changed).reshape(image.shape)


def drawn(channels):
    """Noise, low contrast, one flat image and a smooth one: uint8 [4, 40, 56, C]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :56]
    waves = (127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7))[..., None] * np.linspace(1, 0.7, channels)
    shape = (*x.shape, channels)
    images = [rng.integers(0, 256, shape), rng.normal(120, 20, shape).clip(0, 255), np.full(shape, 77), waves]
    return np.stack(images).astype(np.uint8)


@pytest.fixture(params=["drawn", "real"])
def faces(request):
    """A function that returns pictures with so many channels."""
    if request.param == "drawn":
        return drawn
    packed = np.load(request.getfixturevalue("real_data") / "fer2013_unique_png.npz")
    first, end = packed["offset"][:2]
    sheet = np.asarray(Image.open(io.BytesIO(packed["png"][first:end].tobytes())))
    gray = np.stack([sheet[:48, 48 * i : 48 * i + 48] for i in range(4)])[..., None]
    return lambda channels: (gray * np.linspace(1, 0.7, channels)).astype(np.uint8)


@pytest.mark.parametrize(("channels", "bilinear"), [(1, False), (3, False), (3, True)])
def test_each_operation_is_that_of_pillow(faces, channels, bilinear):
    names = OPERATIONS[1:6] if bilinear else OPERATIONS
    cases = [(name, value, image) for name in names for value in VALUES.get(name, (0.0,)) for image in faces(channels)]
    operations, values = np.array([NUMBER[name] for name, *_ in cases]), np.array([value for _, value, _ in cases])
    out = ours(np.stack([image for *_, image in cases]), operations, values, bilinear)
    for (name, value, image), changed in zip(cases, out, strict=True):
        most = 1 if bilinear or name == "autocontrast" else 0  # a float32 beside a double that is cut
        difference = np.abs(changed - theirs(image, name, value, bilinear).astype(float)).max()
        assert difference <= most, (name, value, difference)


def test_hand_made_pixels():
    pixels = np.zeros((48, 48, 1), np.uint8)
    pixels[0, :3, 0] = 5, 128, 250
    cases = [("posterize", 4.0), ("solarize", 128.0), ("invert", 0.0), ("identity", 0.0)]
    out = ours(np.stack([pixels] * 4), np.array([NUMBER[n] for n, _ in cases]), np.array([v for _, v in cases]))
    assert out[:, 0, :3, 0].tolist() == [[0, 128, 240], [5, 127, 5], [250, 127, 5], [5, 128, 250]]
    twice = ours(out[2:3], np.array([NUMBER["invert"]]), np.zeros(1))
    np.testing.assert_array_equal(twice[0], pixels)


# Draws

# The start of the SHA-256 of TABLES, which were compared entry by entry with the published ones, once.
PUBLISHED = {"cifar10": "29e4c66408fe8b3e", "imagenet": "79ed70e290256e31", "svhn": "e33c5230f6e72d6a"}


def steps(function, *arguments, channels=3, count=4000):
    """Operations and values that so many images of 60x40 pixels undergo."""
    draw = jax.vmap(lambda key: function(key, (60, 40, channels), *arguments))
    operations, values = (np.asarray(x) for x in jax.jit(draw)(jax.random.split(KEY, count)))
    return operations, values


@pytest.mark.parametrize("table", policies.TABLES)
def test_pairs_of_operations_are_drawn_as_often_as_published(table):
    assert hashlib.sha256(" ".join(policies.TABLES[table].split()).encode()).hexdigest()[:16] == PUBLISHED[table]
    expected = np.zeros((len(OPERATIONS),) * 2)
    operations, probabilities, levels = policies._read(table)
    assert operations.shape == probabilities.shape == levels.shape == (25, 2)
    for (first, second), (p, q) in zip(operations, probabilities, strict=True):
        for a, b in itertools.product((False, True), repeat=2):
            share = (p if a else 1 - p) * (q if b else 1 - q) / 25
            expected[first if a else 0, second if b else 0] += share
    found, _ = steps(policies.autoaugment_steps, table, "published", count=10_000)
    counts = np.zeros_like(expected)
    np.add.at(counts, tuple(found.T), 1)
    assert counts[expected == 0].sum() == 0
    often = expected * 10_000 >= 5
    rest = [counts[~often].sum()], [1e-9 + expected[~often].sum() * 10_000]
    observed, awaited = (np.append(a[often], b) for a, b in ((counts, rest[0]), (expected * 10_000, rest[1])))
    assert stats.chisquare(observed, awaited * observed.sum() / awaited.sum()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("function", "arguments", "number"),
    [
        (policies.randaugment_steps, (2, 9), 14),
        (policies.trivialaugment_steps, (), 14),
        (policies.augmix_steps, (3, 3), 13),
    ],
)
def test_operations_are_drawn_equally_often_and_only_those_that_may_be(function, arguments, number):
    def counts(limits, channels):
        operations, _ = steps(function, *arguments, limits, channels=channels)
        first = operations.reshape(4000, -1)[:, 0]  # of AugMix: every chain has a first one
        return np.bincount(first, minlength=len(OPERATIONS))

    every = counts("published", 3)
    assert stats.chisquare(every[every > 0]).pvalue > 1e-3
    assert (every > 0).sum() == number
    gray, face = counts("published", 1), counts("faces", 3)
    assert np.flatnonzero((every > 0) & (gray == 0)).tolist() == [NUMBER["color"]]
    assert np.flatnonzero((every > 0) & (face == 0)).tolist() == [NUMBER["posterize"], NUMBER["solarize"]]


def extremes(drawn_steps):
    """The lowest and the highest value of each operation that was drawn."""
    operations, values = drawn_steps
    of = {name: values[operations == number] for name, number in NUMBER.items()}
    return {name: (round(float(v.min()), 4), round(float(v.max()), 4)) for name, v in of.items() if v.size}


def test_values_by_level():
    rand = extremes(steps(policies.randaugment_steps, 2, 9, "published"))  # 0.3 of the way, on 40x60 pixels
    assert rand["shear_x"] == (-0.09, 0.09)
    assert rand["translate_x"] == pytest.approx((-5.4381, 5.4381), abs=1e-3)
    assert rand["translate_y"] == pytest.approx((-8.1571, 8.1571), abs=1e-3)
    assert rand["rotate"] == (-9.0, 9.0)
    assert rand["brightness"] == rand["sharpness"] == (0.73, 1.27)
    assert (rand["posterize"], rand["solarize"]) == ((7.0, 7.0), (178.5, 178.5))
    trivial = extremes(steps(policies.trivialaugment_steps, "published", count=20_000))
    assert trivial["translate_x"] == trivial["translate_y"] == (-32.0, 32.0)
    assert trivial["rotate"] == (-135.0, 135.0)
    assert trivial["contrast"] == (0.01, 1.99)
    assert (trivial["posterize"], trivial["solarize"]) == ((2.0, 8.0), (0.0, 255.0))
    mixed = extremes(steps(policies.augmix_steps, 10, 3, "published"))
    assert (mixed["posterize"], mixed["rotate"], mixed["solarize"]) == ((1.0, 4.0), (-30.0, 30.0), (0.0, 255.0))
    auto = extremes(steps(policies.autoaugment_steps, "imagenet", "published"))  # levels of 9: rotate 9, solarize 8
    assert (auto["rotate"], auto["posterize"]) == ((-30.0, 30.0), (4.0, 6.0))
    assert auto["shear_x"] == pytest.approx((-1 / 6, 1 / 6), abs=1e-3)
    assert auto["solarize"] == pytest.approx((255 / 9, 170.0), abs=1e-3)


@pytest.mark.parametrize("space", [policies.AUTOAUGMENT, policies.WIDE, policies.FACES, policies.AUGMIX])
def test_level_0_changes_nothing(space):
    """But for AugMix's posterize, and solarize on white."""
    strong = [name for name in OPERATIONS if name not in ("autocontrast", "equalize", "invert")]
    steps = np.array([NUMBER[name] for name in strong for _ in range(4)])
    pictures = np.tile(np.minimum(drawn(3), 254), (len(strong), 1, 1, 1))
    level = np.zeros(len(steps), np.float32)
    values = np.asarray(policies._values(KEY, steps, level, space, "published", pictures.shape[1:]))
    changed = (ours(pictures, steps, values) != pictures).any((1, 2, 3))
    assert {OPERATIONS[n] for n in steps[changed]} == ({"posterize"} if space is policies.AUGMIX else set())


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (policies.autoaugment_steps, ("cifar10",)),
        (policies.autoaugment_steps, ("imagenet",)),
        (policies.autoaugment_steps, ("svhn",)),
        (policies.randaugment_steps, (2, 30)),
        (policies.trivialaugment_steps, ()),
        (policies.augmix_steps, (10, 3)),
    ],
)
def test_faces_stay_faces(function, arguments):
    most = extremes(steps(function, *arguments, "faces"))
    assert "invert" not in most
    limits = {"shear_x": 0.15, "shear_y": 0.15, "translate_x": 4.0, "translate_y": 6.0, "rotate": 15.0}
    for name in set(limits) & set(most):
        assert max(np.abs(most[name])) <= limits[name] + 1e-5
    assert most.get("solarize", (255, 255))[0] > 127
    assert most.get("posterize", (8, 8))[0] >= 4


# Whole policies


def test_a_policy_is_its_steps_one_after_the_other():
    images = np.tile(drawn(3)[:2], (24, 1, 1, 1))
    keys = jax.random.split(KEY, len(images))
    apply = jax.vmap(lambda key, image: policies.autoaugment(key, image, "cifar10", "published"))
    out = np.asarray(jax.jit(apply)(keys, images / np.float32(255))) * 255
    np.testing.assert_allclose(out, np.rint(out), atol=1e-3)
    draw = jax.vmap(lambda key: policies.autoaugment_steps(key, images.shape[1:], "cifar10", "published"))
    for image, changed, operations, values in zip(images, np.rint(out), *map(np.asarray, draw(keys)), strict=True):
        for operation, value in zip(operations, values, strict=True):
            image = theirs(image, OPERATIONS[operation], float(value))
        assert (np.abs(image - changed) <= 1).mean() > 0.99


def test_augmix_mixes_the_image_with_all_of_its_chains():
    image = drawn(3)[3]
    mixed = jax.jit(lambda key: policies.augmix(key, image / np.float32(255), 3, 3, "published"))(KEY)
    step_key, weight_key, share_key = jax.random.split(KEY, 3)
    weights = np.asarray(jax.random.exponential(weight_key, (3,)))
    share = float(jax.random.uniform(share_key))
    chains = zip(*map(np.asarray, policies.augmix_steps(step_key, image.shape, 3, 3, "published")), strict=True)
    expected = share * image
    for weight, (operations, values) in zip(weights / weights.sum(), chains, strict=True):
        copy = image
        for operation, value in zip(operations, values, strict=True):
            copy = theirs(copy, OPERATIONS[operation], float(value), bilinear=True)
        expected = expected + (1 - share) * weight * copy
    difference = np.abs(255 * np.asarray(mixed) - np.floor(expected))
    assert (difference <= 1.001).mean() > 0.99


@pytest.mark.parametrize("text", ["trivialaugment:p=0.5,limits=faces", "augmix:p=0.5"])
def test_policies_are_operations_of_the_list(text):
    images = np.tile(drawn(1)[:1, :, :40], (64, 1, 1, 1))
    raw = Preprocessing(40, mean=(0.0,) * 3, std=(1.0,) * 3)
    out = np.asarray(jax.jit(lambda key: augment(key, images, Augmentation((text,)), raw))(KEY))
    changed = np.abs(out - images / 255).max((1, 2, 3)) > 1e-3
    assert 0.2 < changed.mean() < 0.6  # some operations change nothing
    assert len({picture.tobytes() for picture in out[changed]}) > 8
    np.testing.assert_allclose(255 * out, np.rint(255 * out), atol=1e-3)


@pytest.mark.parametrize(("entry", "says"), [("trivialaugment", 1), ("autoaugment:svhn", 0)])
def test_gray_pictures_have_no_color_operation_which_is_said_once(entry, says, capsys):
    config = baseline.get_config("smoke")
    config.augmentation.train = (entry, "flip")
    gray = types.SimpleNamespace(picture_shape=(48, 48, 1), name="gray faces")
    for _ in range(2):
        setup._note_colors(config, gray)
    assert capsys.readouterr().err.count("applies no color operations: gray faces is gray") == says


def test_a_policy_is_refused_where_landmarks_would_have_to_move():
    config = geometry.get_config("smoke")
    config.augmentation.train = ("one_of(trivialaugment|flip)",)
    with pytest.raises(UserError, match=r"trivialaugment.*landmarks"):
        check_config(config)


def test_random_pixels_in_a_tall_box():
    white = np.full((2000, 24, 24, 1), 255, np.uint8)
    raw = Preprocessing(24, mean=(0.0,) * 3, std=(1.0,) * 3)
    out = np.asarray(jax.jit(lambda key: augment(key, white, Augmentation(("erase_pixels",)), raw))(KEY))[..., 0]
    gone = out < 1
    hit = gone.any((1, 2))
    assert abs(hit.mean() - 0.5) < 0.03
    assert stats.kstest(out[gone], "uniform").pvalue > 1e-3
    height, width = gone.any(2).sum(1)[hit], gone.any(1).sum(1)[hit]
    assert (height * width / 24**2).min() > 0.01
    assert (height * width / 24**2).max() < 0.43
    assert 1.5 < (height / width).mean() < 2.0  # uniform in 0.3 .. 3.33: 1.8; log-uniform would give 1.26


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("randaugmnet", "randaugmnet.*'randaugment'"),
        ("randaugment:2,magnitude=31", "magnitude=31.*0 to 30"),
        ("trivialaugment:p=1.5", "p=1.5.*0 to 1"),
        ("autoaugment:cifar", "table=cifar.*'cifar10'"),
    ],
)
def test_mistakes_in_a_policy_are_named(entry, says):
    with pytest.raises(UserError, match=rf"config\.augmentation\.train.*{says}"):
        Augmentation((entry,))
