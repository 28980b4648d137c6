"""Augmentation policies: AutoAugment, RandAugment, TrivialAugment and AugMix, drawn for each image.

Operations, levels and draws are those of torchvision, which resamples by the nearest pixel (AugMix bilinearly). The
color operation leaves a gray picture as it is: it is not drawn for pictures with one channel, but remains in
AutoAugment's pairs.

limits='faces' limits strengths for faces: no inversion, no strong solarizing, turns of at most 15 degrees, translations
of at most a tenth of the side and shears of at most 0.15. RandAugment, TrivialAugment and AugMix then leave out
posterizing and solarizing altogether.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from fer_jax.data.augment import pillow
from fer_jax.data.augment.pillow import NUMBER, OPERATIONS

LIMITS = ("published", "faces")
LEVELS = 10  # of AutoAugment and AugMix
FINE_LEVELS = 31  # of RandAugment and TrivialAugment
DEPTH = 3  # most operations in a chain of AugMix
HARMFUL = ("posterize", "solarize")  # to faces, at some levels

# AutoAugment (Cubuk et al., arXiv 1805.09501): on each line, two operations, each with its probability and level (0 to
# 9); the level of one without a strength is 0.
TABLES = {
    "cifar10": """
        invert .1 0  contrast .2 6
        rotate .7 2  translate_x .3 9
        sharpness .8 1  sharpness .9 3
        shear_y .5 8  translate_y .7 9
        autocontrast .5 0  equalize .9 0
        shear_y .2 7  posterize .3 7
        color .4 3  brightness .6 7
        sharpness .3 9  brightness .7 9
        equalize .6 0  equalize .5 0
        contrast .6 7  sharpness .6 5
        color .7 7  translate_x .5 8
        equalize .3 0  autocontrast .4 0
        translate_y .4 3  sharpness .2 6
        brightness .9 6  color .2 8
        solarize .5 2  invert 0 0
        equalize .2 0  autocontrast .6 0
        equalize .2 0  equalize .6 0
        color .9 9  equalize .6 0
        autocontrast .8 0  solarize .2 8
        brightness .1 3  color .7 0
        solarize .4 5  autocontrast .9 0
        translate_y .9 9  translate_y .7 9
        autocontrast .9 0  solarize .8 3
        equalize .8 0  invert .1 0
        translate_y .7 9  autocontrast .9 0""",
    "imagenet": """
        posterize .4 8  rotate .6 9
        solarize .6 5  autocontrast .6 0
        equalize .8 0  equalize .6 0
        posterize .6 7  posterize .6 6
        equalize .4 0  solarize .2 4
        equalize .4 0  rotate .8 8
        solarize .6 3  equalize .6 0
        posterize .8 5  equalize 1 0
        rotate .2 3  solarize .6 8
        equalize .6 0  posterize .4 6
        rotate .8 8  color .4 0
        rotate .4 9  equalize .6 0
        equalize 0 0  equalize .8 0
        invert .6 0  equalize 1 0
        color .6 4  contrast 1 8
        rotate .8 8  color 1 2
        color .8 8  solarize .8 7
        sharpness .4 7  invert .6 0
        shear_x .6 5  equalize 1 0
        color .4 0  equalize .6 0
        equalize .4 0  solarize .2 4
        solarize .6 5  autocontrast .6 0
        invert .6 0  equalize 1 0
        color .6 4  contrast 1 8
        equalize .8 0  equalize .6 0""",
    "svhn": """
        shear_x .9 4  invert .2 0
        shear_y .9 8  invert .7 0
        equalize .6 0  solarize .6 6
        invert .9 0  equalize .6 0
        equalize .6 0  rotate .9 3
        shear_x .9 4  autocontrast .8 0
        shear_y .9 8  invert .4 0
        shear_y .9 5  solarize .2 6
        invert .9 0  autocontrast .8 0
        equalize .6 0  rotate .9 3
        shear_x .9 4  solarize .3 3
        shear_y .8 8  invert .7 0
        equalize .9 0  translate_y .6 6
        invert .9 0  equalize .6 0
        contrast .3 3  rotate .8 4
        invert .8 0  translate_y 0 2
        shear_y .7 6  solarize .4 8
        invert .6 0  rotate .8 4
        shear_y .3 7  translate_x .9 3
        shear_x .1 6  invert .6 0
        solarize .7 2  translate_y .6 7
        shear_y .8 4  invert .8 0
        shear_x .7 9  translate_y .8 3
        shear_y .8 5  autocontrast .7 0
        shear_x .7 2  invert .1 0""",
}


class Space(NamedTuple):
    """The strongest value of each operation, at level 1.

    Level 0 changes nothing, except AugMix's posterize, and solarize on pure white.

    Attributes:
        shear: pixels per pixel.
        translate: share of the side.
        pixels: added to it.
        rotate: degrees.
        enhance: distance of the factor from 1.
        bits: that posterize keeps at the level 0, and how many fewer at the level 1.
    """

    shear: float = 0.3
    translate: float = 150 / 331
    pixels: float = 0.0
    rotate: float = 30.0
    enhance: float = 0.9
    bits: tuple[int, int] = (8, 4)


AUTOAUGMENT = Space()  # and RandAugment
WIDE = Space(0.99, 0.0, 32.0, 135.0, 0.99, (8, 6))
AUGMIX = Space(translate=1 / 3, bits=(4, 4))
FACES = WIDE._replace(shear=0.15, translate=0.1, pixels=0.0, rotate=15.0)

Steps = tuple[Int[Array, "*n"], Float[Array, "*n"]]
"""What an image undergoes, in order: operations (positions in pillow.OPERATIONS) and their values."""


def autoaugment(key: Key[Array, ""], image: Float[Array, "H W C"], table: str, limits: str) -> Float[Array, "H W C"]:
    """Applies one of the 25 pairs of operations of a table, each with its own probability and level.

    Args:
        key: of this operation.
        image: in 0 .. 1.
        table: one of TABLES, by the data on which it was found.
        limits: one of LIMITS.
    """
    return _in_levels(image, autoaugment_steps(key, image.shape, table, limits))


def autoaugment_steps(key: Key[Array, ""], shape: tuple[int, ...], table: str, limits: str) -> Steps:
    operations, probabilities, levels = _read(table)
    if limits == "faces":
        inverts = (operations == NUMBER["invert"]) | ((operations == NUMBER["solarize"]) & (levels >= 5))
        operations = np.where(inverts, NUMBER["identity"], operations)
    pick_key, chosen_key, sign_key = jax.random.split(key, 3)
    pick = jax.random.randint(pick_key, (), 0, len(operations))
    chosen = jax.random.uniform(chosen_key, (2,)) < jnp.asarray(probabilities, jnp.float32)[pick]
    steps = jnp.where(chosen, jnp.asarray(operations, jnp.int32)[pick], NUMBER["identity"])
    level = jnp.asarray(levels, jnp.float32)[pick] / (LEVELS - 1)
    return steps, _values(sign_key, steps, level, AUTOAUGMENT, limits, shape)


def randaugment(
    key: Key[Array, ""], image: Float[Array, "H W C"], count: int, magnitude: int, limits: str
) -> Float[Array, "H W C"]:
    """Applies `count` operations, drawn with replacement, at one level (Cubuk et al., arXiv 1909.13719).

    Args:
        key: of this operation.
        image: in 0 .. 1.
        count: of operations.
        magnitude: the level, 0 to 30.
        limits: one of LIMITS.
    """
    return _in_levels(image, randaugment_steps(key, image.shape, count, magnitude, limits))


def randaugment_steps(key: Key[Array, ""], shape: tuple[int, ...], count: int, magnitude: int, limits: str) -> Steps:
    operation_key, sign_key = jax.random.split(key)
    steps = _any(operation_key, (count,), shape, limits)
    level = jnp.full(count, magnitude / (FINE_LEVELS - 1), jnp.float32)
    return steps, _values(sign_key, steps, level, AUTOAUGMENT, limits, shape)


def trivialaugment(key: Key[Array, ""], image: Float[Array, "H W C"], limits: str) -> Float[Array, "H W C"]:
    """Applies one operation at any level, in the wide space (Müller and Hutter, arXiv 2103.10158).

    Translations reach 32 pixels at any size; with limits='faces' the levels span the reduced ranges.
    """
    return _in_levels(image, trivialaugment_steps(key, image.shape, limits))


def trivialaugment_steps(key: Key[Array, ""], shape: tuple[int, ...], limits: str) -> Steps:
    operation_key, level_key, sign_key = jax.random.split(key, 3)
    steps = _any(operation_key, (1,), shape, limits)
    level = jax.random.randint(level_key, (1,), 0, FINE_LEVELS).astype(jnp.float32) / (FINE_LEVELS - 1)
    return steps, _values(sign_key, steps, level, FACES if limits == "faces" else WIDE, limits, shape)


def augmix(
    key: Key[Array, ""], image: Float[Array, "H W C"], severity: int, chains: int, limits: str
) -> Float[Array, "H W C"]:
    """Mixes the image with copies of it, each through one to three operations (Hendrycks et al., arXiv 1912.02781).

    The weights of the copies, and that of the image among them, are uniform. The paper's consistency loss
    is not implemented.

    Args:
        key: of this operation.
        image: in 0 .. 1.
        severity: levels are drawn from the lowest so many of 10.
        chains: number of copies.
        limits: one of LIMITS.
    """
    step_key, weight_key, share_key = jax.random.split(key, 3)
    operations, values = augmix_steps(step_key, image.shape, severity, chains, limits)

    def chain(operations: Int[Array, "n"], values: Float[Array, "n"]) -> Float[Array, "H W C"]:
        return _in_levels(image, (operations, values), bilinear=True)

    copies = jax.vmap(chain)(operations, values)
    weights = jax.random.exponential(weight_key, (chains,))  # normalized: Dirichlet(1, ..., 1)
    mixed = jnp.tensordot(weights / jnp.sum(weights), copies, axes=1, precision="highest")
    share = jax.random.uniform(share_key)  # Beta(1, 1)
    return jnp.floor(255 * (share * image + (1 - share) * mixed) + pillow.JUST_BELOW) / 255


def augmix_steps(key: Key[Array, ""], shape: tuple[int, ...], severity: int, chains: int, limits: str) -> Steps:
    """Returns the steps of each chain: both arrays are [chains, DEPTH]."""
    operation_key, depth_key, level_key, sign_key = jax.random.split(key, 4)
    drawn = _any(operation_key, (chains, DEPTH), shape, limits, identity=False)
    depth = jax.random.randint(depth_key, (chains, 1), 1, DEPTH + 1)
    steps = jnp.where(jnp.arange(DEPTH) < depth, drawn, NUMBER["identity"])
    level = jax.random.randint(level_key, drawn.shape, 0, severity).astype(jnp.float32) / (LEVELS - 1)
    return steps, _values(sign_key, steps, level, AUGMIX, limits, shape)


@functools.cache
def _read(table: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Operations, probabilities and levels, [25, 2] each."""
    words = np.array(TABLES[table].split()).reshape(-1, 2, 3)
    return np.vectorize(NUMBER.get)(words[..., 0]), words[..., 1].astype(float), words[..., 2].astype(int)


def _any(
    key: Key[Array, ""], count: tuple[int, ...], shape: tuple[int, ...], limits: str, identity: bool = True
) -> Int[Array, "*n"]:
    """Draws operations, each as likely: all but inversion, and those that these pictures or limits leave out."""
    without = {"invert"} | ({"color"} if shape[-1] == 1 else set()) | (set() if identity else {"identity"})
    without |= set(HARMFUL) if limits == "faces" else set()
    numbers = jnp.array([NUMBER[name] for name in OPERATIONS if name not in without], jnp.int32)
    return numbers[jax.random.randint(key, count, 0, len(numbers))]


def _values(
    key: Key[Array, ""],
    steps: Int[Array, "*n"],
    level: Float[Array, "*n"],
    space: Space,
    limits: str,
    shape: tuple[int, ...],
) -> Float[Array, "*n"]:
    """Returns the values of operations at levels in 0 .. 1; those that have a direction get a random one."""
    height, width = shape[:2]

    def reach(space: Space) -> list[float]:
        across, down = (space.translate * side + space.pixels for side in (width, height))
        enhance = [space.enhance] * 4
        return [0.0, space.shear, space.shear, across, down, space.rotate, *enhance, -space.bits[1], -255.0, 0, 0, 0]

    start = jnp.array([0.0] * 6 + [1.0] * 4 + [space.bits[0], 255.0, 0.0, 0.0, 0.0])
    sign = jnp.where((steps < NUMBER["posterize"]) & jax.random.bernoulli(key, shape=steps.shape), -1.0, 1.0)
    amount = jnp.array(reach(space))[steps] * level
    if limits == "faces":
        most = jnp.where(steps <= NUMBER["rotate"], jnp.array(reach(FACES))[steps], jnp.inf)
        amount = jnp.minimum(amount, most)
    value = start[steps] + sign * amount
    # At the highest levels torchvision's AugMix keeps 0 bits, which Pillow refuses.
    return jnp.where(steps == NUMBER["posterize"], jnp.maximum(jnp.round(value), 1.0), value)


def _in_levels(image: Float[Array, "H W C"], steps: Steps, bilinear: bool = False) -> Float[Array, "H W C"]:
    """Applies steps to an image in 0 .. 1, in whole gray levels."""
    planes = jnp.moveaxis(jnp.round(255 * image), -1, 0)

    def change(planes: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return pillow.apply(planes, *step, bilinear), None

    # A loop compiles faster, and XLA's CPU compiler would otherwise draw again for each pixel.
    planes, _ = jax.lax.scan(change, planes, steps)
    return jnp.moveaxis(planes, 0, -1) / 255
