"""Random augmentation inside the compiled training step: JAX, vmapped, one key per example.

Everything geometric (window, rotation, zoom, shear, shift, flip, warp, resize) is one map per image and one
bilinear sampling, so an image is interpolated once. Then follow brightness, contrast, normalisation and
erasing. The key of an example depends on its place in the global batch alone, never on the number of devices.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

from fer_jax.data.augment import geometry
from fer_jax.errors import UserError, nearest

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as PIL and torchvision
TRIES = 10  # draws of a box before giving up, as torchvision
ALIASING = 1.5  # a stronger reduction than this is smoothed first
FILLS = ("zero", "random")


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a training image; everything is off by default. Pixels are those of the stored image.

    Attributes:
        flip: mirror half of the images.
        flip_alternate: mirror an image in every other epoch instead of at random, half of them in the first
            (Jordan, arXiv 2404.00498): two epochs show it once in each form. Needs `flip`.
        shift: move by whole pixels, -shift .. shift in x and y ("pad and crop" when the size does not
            change).
        crop: side of the window that is cut out, at random while training and from the middle otherwise.
        crop_scale: random-resized crop: range of the window's share of the area.
        crop_aspect: range of its width / height, log-uniform.
        rotation: degrees, -rotation .. rotation.
        zoom: range of the magnification, log-uniform.
        shear: degrees, -shear .. shear.
        translate: share of the side, -translate .. translate in x and y, any fraction of a pixel.
        affine_probability: of applying rotation, zoom, shear and translate to an image.
        warp: perspective: each side is stretched or shrunk by a share of itself, -warp .. warp.
        warp_probability: of applying it to an image.
        pad: what fills the outside: 'zero', 'edge' or 'reflect'.
        brightness: factor from 1 - brightness .. 1 + brightness.
        contrast: factor of the distance from the image's mean grey, from 1 - contrast .. 1 + contrast.
        light_probability: of applying brightness and contrast to an image.
        erase: probability of Random Erasing (Zhong et al., arXiv 1708.04896).
        erase_area: range of the erased share of the area.
        erase_aspect: range of height / width, log-uniform as in torchvision (the paper's uniform favours
            tall ones).
        erase_fill: 'zero' after normalisation, or 'random' (standard normal).
        standardise: per-image zero mean and unit variance, instead of `mean` and `std`.
        mean, std: per channel, of images in 0 .. 1.
        per_frame: draw for every frame of a clip by itself, instead of once for the whole clip.
    """

    flip: bool = False
    flip_alternate: bool = False
    shift: int = 0
    crop: int | None = None
    crop_scale: tuple[float, float] | None = None
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 0.0
    zoom: tuple[float, float] | None = None
    shear: float = 0.0
    translate: float = 0.0
    affine_probability: float = 1.0
    warp: float = 0.0
    warp_probability: float = 1.0
    pad: str = "zero"
    brightness: float = 0.0
    contrast: float = 0.0
    light_probability: float = 1.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.25)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    erase_fill: str = "zero"
    standardise: bool = False
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    per_frame: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # configs hold lists; a hashable value may be a static argument
                object.__setattr__(self, field.name, tuple(value))
        for name, known in (("pad", geometry.PADS), ("erase_fill", FILLS)):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"augmentation.{name} = '{value}' does not exist: {nearest(value, known)}")
        for name in ("crop_scale", "crop_aspect", "zoom", "erase_area", "erase_aspect"):
            bounds = getattr(self, name)
            if bounds is not None and not (len(bounds) == 2 and 0 < bounds[0] <= bounds[1]):
                raise UserError(f"augmentation.{name} = {bounds}: give (low, high) with 0 < low <= high")
        for name in ("affine_probability", "warp_probability", "light_probability", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augmentation.{name} = {getattr(self, name)}: give a probability, 0 .. 1")
        for name in ("shift", "rotation", "shear", "translate", "warp", "brightness", "contrast"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"augmentation.{name} = {getattr(self, name)}: give a size, 0 or more")
        if self.warp >= 1:
            raise UserError(f"augmentation.warp = {self.warp}: give a share of the side, below 1")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise UserError("augmentation.mean and .std: give three numbers each, for red, green and blue")
        if min(self.std) <= 0:
            raise UserError(f"augmentation.std = {self.std}: give numbers above 0")
        if self.flip_alternate and not self.flip:
            raise UserError("augmentation.flip_alternate says when an image is mirrored: set augmentation.flip as well")
        if self.crop is not None and self.crop_scale is not None:
            raise UserError("augmentation.crop and augmentation.crop_scale exclude each other: set one to None")


def augment(
    key: Key[Array, ""],
    images: UInt8[Array, "B H W C"],
    config: Augmentation,
    *,
    size: int,
    train: bool,
    alike: int = 1,
    flips: Bool[Array, "B"] | None = None,
) -> Float[Array, "B size size 3"]:
    """The network's input: augmented when `train`, else the middle window, resized; normalised, three
    channels.

    Args:
        key: of this step; it is not used unless `train`.
        images: C = 1 (grey, repeated at the end) or 3.
        size: side of the result.
        alike: so many successive images, such as the frames of a clip, are augmented in the same way.
        flips: which images are mirrored, where that is not drawn (see `inputs.alternate_flips`).
    """
    if not train:
        return jax.vmap(functools.partial(normalise, config=config))(central(images, config, size) / 255)
    keys = example_keys(key, len(images), alike)
    matrices = warp_matrices(key, images.shape, config, size=size, alike=alike, flips=flips)
    source, width_ratio, height_ratio = smoothed(images.astype(jnp.float32), config, size)

    def one(key: Key[Array, ""], image: Float[Array, "h w C"], matrix: Float[Array, "2 3"]) -> jax.Array:
        matrix = geometry.rescale_source(matrix, width_ratio, height_ratio)
        x = geometry.sample(image, matrix, size, config.pad) / 255
        x = normalise(light(key, x, config), config)
        return erase(stream(key, "erase"), x, config) if config.erase else x

    return jax.vmap(one)(keys, source, matrices)


def warp_matrices(
    key: Key[Array, ""],
    shape: tuple[int, ...],
    config: Augmentation,
    *,
    size: int,
    alike: int = 1,
    flips: Bool[Array, "B"] | None = None,
) -> Float[Array, "B R 3"]:
    """The maps that `augment` applies with this key while training, from output to stored pixels.

    `geometry.move_points` takes landmarks through them.
    """
    draw = functools.partial(warp_matrix, height=shape[1], width=shape[2], config=config, size=size)
    keys = example_keys(key, shape[0], alike)
    return jax.vmap(draw)(keys) if flips is None else jax.vmap(lambda key, flip: draw(key, flip=flip))(keys, flips)


# Geometry: one map per image


def warp_matrix(
    key: Key[Array, ""],
    *,
    height: int,
    width: int,
    config: Augmentation,
    size: int,
    flip: Bool[Array, ""] | None = None,
) -> Float[Array, "R 3"]:
    """Draws one image's map: output -> perspective -> flip -> affine -> window of the stored image.

    Whether it is mirrored is drawn too, unless `flip` says it.
    """
    centre, extent = window(stream(key, "window"), height, width, config)
    if config.shift:
        check_shift(config.shift, height, width)
        pixels = jax.random.randint(stream(key, "shift"), (2,), -config.shift, config.shift + 1)
        centre = centre - pixels.astype(jnp.float32)
    linear, offset = affine(stream(key, "affine"), config)
    if config.flip:
        mirrored = jax.random.bernoulli(stream(key, "flip")) if flip is None else flip
        linear = linear * jnp.array([jnp.where(mirrored, -1.0, 1.0), 1.0])  # the columns: x_out changes sign
    matrix = geometry.around((extent / size)[:, None] * linear, centre + extent * offset, size, size)
    if not config.warp:
        return matrix
    return geometry.product(geometry.projective(matrix), warp(stream(key, "warp"), config, size))


def window(
    key: Key[Array, ""], height: int, width: int, config: Augmentation
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """(centre, extent), each (x, y), of the part of the stored image that fills the output."""
    whole = jnp.array([width, height], jnp.float32)
    if config.crop is not None:
        check_crop(config.crop, height, width)
        free = jnp.array([width - config.crop, height - config.crop])
        corner = jax.random.randint(key, (2,), jnp.zeros(2, jnp.int32), free + 1).astype(jnp.float32)
        extent = jnp.full(2, config.crop, jnp.float32)
    elif config.crop_scale is not None:
        box_key, place_key = jax.random.split(key)
        extent, fits = box(box_key, height * width, config.crop_scale, config.crop_aspect, whole)
        extent = jnp.where(fits, extent, jnp.min(whole))  # the largest square, in the middle, as torchvision
        place = jnp.where(fits, jax.random.uniform(place_key, (2,)), 0.5)
        corner = place * (whole - extent)
    else:
        corner, extent = jnp.zeros(2), whole
    return corner + (extent - 1) / 2, extent


def box(
    key: Key[Array, ""],
    area: float,
    share: tuple[float, float],
    aspect: tuple[float, float],
    limit: Float[Array, "2"],
) -> tuple[Float[Array, "2"], Bool[Array, ""]]:
    """Draws (width, height) with a share of `area` and width / height log-uniform in `aspect`.

    Returns the first of ten draws no larger than `limit`, and whether there was one.
    """
    area_key, aspect_key = jax.random.split(key)
    areas = area * jax.random.uniform(area_key, (TRIES,), minval=share[0], maxval=share[1])
    ratio = jnp.exp(jax.random.uniform(aspect_key, (TRIES,), minval=math.log(aspect[0]), maxval=math.log(aspect[1])))
    sides = jnp.stack([jnp.sqrt(areas * ratio), jnp.sqrt(areas / ratio)], axis=-1)
    fits = jnp.all(sides <= limit, axis=-1)
    return sides[jnp.argmax(fits)], jnp.any(fits)


def affine(key: Key[Array, ""], config: Augmentation) -> tuple[Float[Array, "2 2"], Float[Array, "2"]]:
    """Rotation, zoom and shear about the middle, and an offset as a share of the side."""
    linear, offset = jnp.eye(2), jnp.zeros(2)
    if config.rotation:
        linear = geometry.rotation(symmetric(stream(key, "rotation"), config.rotation))
    if config.shear:
        linear = geometry.product(linear, geometry.shear(symmetric(stream(key, "shear"), config.shear)))
    if config.zoom is not None:
        low, high = (math.log(z) for z in config.zoom)
        linear = linear * jnp.exp(-jax.random.uniform(stream(key, "zoom"), minval=low, maxval=high))
    if config.translate:
        offset = symmetric(stream(key, "translate"), config.translate, (2,))
    if config.affine_probability < 1:
        chosen = jax.random.bernoulli(stream(key, "affine"), config.affine_probability)
        linear, offset = jnp.where(chosen, linear, jnp.eye(2)), jnp.where(chosen, offset, 0.0)
    return linear, offset


def warp(key: Key[Array, ""], config: Augmentation, size: int) -> Float[Array, "3 3"]:
    """A change of perspective: the four sides of the picture, each stretched or shrunk about its middle."""
    left, right, top, bottom = symmetric(stream(key, "sides"), config.warp / 2, (4,))
    corners = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    outwards = jnp.array([[-top, -left], [top, -right], [bottom, right], [-bottom, left]])
    if config.warp_probability < 1:
        outwards = outwards * jax.random.bernoulli(stream(key, "chosen"), config.warp_probability).astype(jnp.float32)
    return geometry.perspective(corners + outwards, size)


def smoothed(
    images: Float[Array, "B H W C"], config: Augmentation, size: int
) -> tuple[Float[Array, "B h w C"], float, float]:
    """Shrinks images that sampling would alias. Returns (images, width ratio, height ratio)."""
    height, width = images.shape[1:3]
    reduction = (config.crop or min(height, width)) / size
    if reduction <= ALIASING:
        return images, 1.0, 1.0
    h, w = round(height / reduction), round(width / reduction)
    return geometry.resize(images, h, w), w / width, h / height


def central(images: UInt8[Array, "B H W C"], config: Augmentation, size: int) -> Float[Array, "B size size C"]:
    """The middle window (the whole image without `crop`), resized with smoothing. Nothing is random."""
    height, width = images.shape[1:3]
    if config.crop is not None:
        check_crop(config.crop, height, width)
        top, left = (height - config.crop) // 2, (width - config.crop) // 2
        images = images[:, top : top + config.crop, left : left + config.crop]
    x = images.astype(jnp.float32)
    return x if x.shape[1:3] == (size, size) else geometry.resize(x, size, size)


def check_crop(crop: int, height: int, width: int) -> None:
    if not 0 < crop <= min(height, width):
        raise UserError(f"augmentation.crop = {crop}: the stored images are {height}x{width}; choose a smaller one")


def check_shift(shift: int, height: int, width: int) -> None:
    if shift >= min(height, width):
        raise UserError(f"augmentation.shift = {shift}: the stored images are {height}x{width}; choose a smaller one")


# Light: images in 0 .. 1


def light(key: Key[Array, ""], image: Float[Array, "S S C"], config: Augmentation) -> Float[Array, "S S C"]:
    """Brightness, then contrast, as far as they are switched on."""
    x = image
    if config.brightness:
        x = brightness(x, around_one(stream(key, "brightness"), config.brightness))
    if config.contrast:
        x = contrast(x, around_one(stream(key, "contrast"), config.contrast))
    if config.light_probability < 1:
        x = jnp.where(jax.random.bernoulli(stream(key, "light"), config.light_probability), x, image)
    return x


def brightness(image: Float[Array, "S S C"], factor: Float[Array, ""]) -> Float[Array, "S S C"]:
    """factor * image, clipped to 0 .. 1."""
    return jnp.clip(factor * image, 0.0, 1.0)


def contrast(image: Float[Array, "S S C"], factor: Float[Array, ""]) -> Float[Array, "S S C"]:
    """mean grey + factor * (image - mean grey), clipped to 0 .. 1."""
    grey = jnp.sum(image * jnp.array(GREY), axis=-1) if image.shape[-1] == 3 else image
    mean = jnp.mean(grey)
    return jnp.clip(mean + factor * (image - mean), 0.0, 1.0)


def normalise(image: Float[Array, "S S C"], config: Augmentation) -> Float[Array, "S S 3"]:
    """Three channels, normalised by `mean` and `std` or standardised (the deviation at least 1 / sqrt(n))."""
    if config.standardise:
        least = math.sqrt(1 / math.prod(image.shape))
        image = (image - jnp.mean(image)) / jnp.maximum(jnp.std(image), least)
    image = jnp.broadcast_to(image, (*image.shape[:2], 3))
    if config.standardise:
        return image
    return (image - jnp.array(config.mean)) / jnp.array(config.std)


def erase(key: Key[Array, ""], image: Float[Array, "S S 3"], config: Augmentation) -> Float[Array, "S S 3"]:
    """Random Erasing: with probability `erase`, overwrites one box."""
    height, width = image.shape[:2]
    top, left, h, w = erased_box(key, height, width, config)
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    gone = (row >= top) & (row < top + h) & (column >= left) & (column < left + w)
    fill = jnp.zeros_like(image)
    if config.erase_fill == "random":
        fill = jax.random.normal(stream(key, "fill"), image.shape)
    return jnp.where(gone[..., None], fill, image)


def erased_box(
    key: Key[Array, ""], height: int, width: int, config: Augmentation
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(top, left, height, width) in whole pixels of the box to erase; its sides are 0 when there is none."""
    low, high = config.erase_aspect
    largest = jnp.array([width - 1, height - 1], jnp.float32)
    sides, fits = box(stream(key, "box"), height * width, config.erase_area, (1 / high, 1 / low), largest)
    chosen = fits & jax.random.bernoulli(stream(key, "chosen"), config.erase)
    w, h = jnp.where(chosen, jnp.round(sides), 0.0).astype(jnp.int32)
    free = jnp.stack([height - h, width - w])
    top, left = jax.random.randint(stream(key, "place"), (2,), jnp.zeros(2, jnp.int32), free + 1)
    return top, left, h, w


# Randomness

STREAMS = (
    "window", "shift", "affine", "flip", "brightness", "contrast", "erase",
    "rotation", "shear", "zoom", "translate", "fill", "box", "chosen", "place", "warp", "sides", "light",
)  # fmt: skip


def example_keys(key: Key[Array, ""], count: int, alike: int = 1) -> Key[Array, "B"]:
    """The keys of `count` images, one for each `alike` successive ones."""
    keys = jax.random.split(key, count // alike)
    return keys if alike == 1 else keys[jnp.arange(count) // alike]


def stream(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """The key of one operation: switching another one on or off does not change its draws."""
    return jax.random.fold_in(key, STREAMS.index(name))


def symmetric(key: Key[Array, ""], bound: float, shape: tuple[int, ...] = ()) -> Float[Array, "*shape"]:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def around_one(key: Key[Array, ""], spread: float) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=max(0.0, 1 - spread), maxval=1 + spread)
