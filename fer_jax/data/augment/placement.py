"""Geometric operations: each changes where the network's input reads the stored picture.

An operation takes the Placement of the picture as the operations before it left it, and returns the next one. All of
them together become one map, and an image is interpolated once. Crops, flips and shifts stay exact in float32: they
copy pixels.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from fer_jax.data.augment import geometry
from fer_jax.data.augment.draws import box, stream, symmetric


class Placement(NamedTuple):
    """Where the current picture lies in the stored one.

    A point at the share u of the picture's sides, -1/2 .. 1/2 from its middle, is read at
    `before`(center + extent * (linear u)).

    Attributes:
        center: (x, y) in stored pixels.
        extent: width and height in stored pixels.
        linear: rotation, zoom, shear and mirroring.
        before: the projective map of warps and of what came before them; None if the list has no warp.
    """

    center: Float[Array, "2"]
    extent: Float[Array, "2"]
    linear: Float[Array, "2 2"]
    before: Float[Array, "3 3"] | None = None


def whole(height: int, width: int, warps: bool) -> Placement:
    """Returns the placement of the whole stored picture; `warps` says whether a warp may follow."""
    extent = jnp.array([width, height], jnp.float32)
    return Placement((extent - 1) / 2, extent, jnp.eye(2), jnp.eye(3) if warps else None)


def matrix(place: Placement, size: int) -> Float[Array, "R 3"]:
    """Returns the map from pixels of a size x size output to stored pixels: R is 3 with `before`, else 2."""
    affine = geometry.around((place.extent / size)[:, None] * place.linear, place.center, size, size)
    return affine if place.before is None else geometry.product(place.before, geometry.projective(affine))


def crop(key: Key[Array, ""], place: Placement, side: int) -> Placement:
    """Cuts out a window of side x side pixels at a random place."""
    free = jnp.maximum(place.extent - side, 0)
    corner = jax.random.randint(key, (2,), jnp.zeros(2, jnp.int32), free.astype(jnp.int32) + 1).astype(jnp.float32)
    return _window(place, corner - free / 2, jnp.full(2, side, jnp.float32))


def crop_scale(
    key: Key[Array, ""], place: Placement, area: tuple[float, float], aspect: tuple[float, float]
) -> Placement:
    """Cuts out a window with a random share of the area and a random width / height, as torchvision does."""
    box_key, place_key = jax.random.split(key)
    extent, fits = box(box_key, place.extent[0] * place.extent[1], area, aspect, place.extent)
    extent = jnp.where(fits, extent, jnp.min(place.extent))  # the largest square, in the middle
    at = jnp.where(fits, jax.random.uniform(place_key, (2,)), 0.5)
    return _window(place, (at - 0.5) * (place.extent - extent), extent)


def shift(key: Key[Array, ""], place: Placement, pixels: int) -> Placement:
    """Moves the picture by -pixels .. pixels whole pixels in x and in y."""
    by = jax.random.randint(key, (2,), -pixels, pixels + 1)
    return place._replace(center=place.center - jnp.sum(_axes(place) * by.astype(jnp.float32), axis=1))


def rotate(key: Key[Array, ""], place: Placement, degrees: float) -> Placement:
    """Turns the picture about its middle by -degrees .. degrees."""
    return _turned(place, geometry.rotation(symmetric(key, degrees)))


def shear(key: Key[Array, ""], place: Placement, degrees: float) -> Placement:
    """Slants the picture along x by -degrees .. degrees."""
    return _turned(place, geometry.shear(symmetric(key, degrees)))


def zoom(key: Key[Array, ""], place: Placement, factor: tuple[float, float]) -> Placement:
    """Magnifies the picture about its middle; the factor is log-uniform."""
    low, high = (math.log(f) for f in factor)
    return place._replace(linear=place.linear * jnp.exp(-jax.random.uniform(key, minval=low, maxval=high)))


def magnify(key: Key[Array, ""], place: Placement, factor: tuple[float, float]) -> Placement:
    """Cuts out a window of the picture's form at a random place; the factor is uniform, as fastai's zoom."""
    factor_key, place_key = jax.random.split(key)
    extent = place.extent / jax.random.uniform(factor_key, minval=factor[0], maxval=factor[1])
    return _window(place, (jax.random.uniform(place_key, (2,)) - 0.5) * (place.extent - extent), extent)


def translate(key: Key[Array, ""], place: Placement, share: float) -> Placement:
    """Moves the picture by -share .. share of its side in x and in y, any fraction of a pixel."""
    offset = jnp.sum(place.linear * symmetric(key, share, (2,)), axis=1)
    return place._replace(center=place.center + place.extent * offset)


def flip(key: Key[Array, ""], place: Placement) -> Placement:
    """Mirrors the picture, left and right."""
    del key
    return place._replace(linear=place.linear * jnp.array([-1.0, 1.0]))


def warp(key: Key[Array, ""], place: Placement, share: float) -> Placement:
    """Changes the perspective: stretches each side about its middle by -share .. share of itself."""
    left, right, top, bottom = symmetric(stream(key, "sides"), share / 2, (4,))
    corners = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    outwards = jnp.array([[-top, -left], [top, -right], [bottom, right], [-bottom, left]])
    width, height = place.extent
    change = geometry.perspective(corners + outwards, width, height)
    picture = geometry.projective(geometry.around(_axes(place), place.center, width, height))
    before = picture if place.before is None else geometry.product(place.before, picture)
    return Placement((place.extent - 1) / 2, place.extent, jnp.eye(2), geometry.product(before, change))


def _axes(place: Placement) -> Float[Array, "2 2"]:
    """The steps in stored pixels, as columns, of one pixel to the right and one down in the current picture."""
    return place.linear * (place.extent[:, None] / place.extent[None, :])


def _turned(place: Placement, linear: Float[Array, "2 2"]) -> Placement:
    return place._replace(linear=geometry.product(place.linear, linear))


def _window(place: Placement, offset: Float[Array, "2"], extent: Float[Array, "2"]) -> Placement:
    """The window of (width, height) `extent`, its middle `offset` pixels away from the picture's middle."""
    center = place.center + jnp.sum(_axes(place) * offset, axis=1)
    ratio = extent / place.extent
    return place._replace(center=center, extent=extent, linear=place.linear * (ratio[None, :] / ratio[:, None]))
