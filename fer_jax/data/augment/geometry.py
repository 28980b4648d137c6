"""Affine and projective maps of images, and one bilinear sampling that carries out any composition of them.

A map is a matrix [2, 3] that takes an OUTPUT pixel (x, y, 1) to the place (x, y) in the source where its
value is read; pixel centers lie at integers. It is built around the centers of the two images, in which
flips, whole-pixel shifts and quarter turns are exact in float32: sampling then copies pixels and blurs
nothing. A projective map is a matrix [3, 3]; its third row gives what the other two are divided by.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Length = int | Float[Array, ""]


def rotation(degrees: Float[Array, ""]) -> Float[Array, "2 2"]:
    """Turns the picture counter-clockwise, as seen (y points down)."""
    angle = jnp.deg2rad(degrees)
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])


def shear(degrees: Float[Array, ""]) -> Float[Array, "2 2"]:
    """Slants the picture along x: at the top, by a positive angle, to the right."""
    t = jnp.tan(jnp.deg2rad(degrees))
    one, zero = jnp.ones_like(t), jnp.zeros_like(t)
    return jnp.stack([jnp.stack([one, t]), jnp.stack([zero, one])])


def product(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """a b in full float32: accelerators round matrix products, and pixels would miss their place."""
    return jnp.sum(a[:, :, None] * b[None, :, :], axis=1)


def around(
    linear: Float[Array, "2 2"], center: Float[Array, "2"], width: Length, height: Length
) -> Float[Array, "2 3"]:
    """The map that takes the middle of a width x height output to `center` (x, y), `linear` around it."""
    middle = jnp.array([(width - 1) / 2, (height - 1) / 2], jnp.float32)
    offset = center - jnp.sum(linear * middle, axis=1)
    return jnp.concatenate([linear, offset[:, None]], axis=1)


def turn(degrees: Float[Array, ""], size: int) -> Float[Array, "2 3"]:
    """The map that turns a size x size picture counter-clockwise about its middle."""
    return around(rotation(degrees), jnp.full(2, (size - 1) / 2, jnp.float32), size, size)


def perspective(corners: Float[Array, "4 2"], width: Length, height: Length) -> Float[Array, "3 3"]:
    """The projective map of a width x height picture that reads its corners at other places.

    Args:
        corners: where the corners (top left, top right, bottom right, bottom left) are read, as (x, y) shares of the
            side: (0, 0), (1, 0), (1, 1), (0, 1) would change nothing.
        width, height: pixels of the output and of the source.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    # Heckbert, "Fundamentals of texture mapping and image warping" (1989), section 2.2.3: unit square to quadrilateral.
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    one = jnp.ones_like(g)
    matrix = jnp.stack(
        [
            jnp.stack([x1 - x0 + g * x1, x3 - x0 + h * x3, x0]),
            jnp.stack([y1 - y0 + g * y1, y3 - y0 + h * y3, y0]),
            jnp.stack([g, h, one]),
        ]
    )
    # Pixel edges lie at 0 and 1: x -> (x + 1/2) / width before, and back afterwards.
    into = jnp.array([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]], jnp.float32)
    back = jnp.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1]], jnp.float32)
    return product(product(back, matrix), into)


def projective(matrix: Float[Array, "2 3"]) -> Float[Array, "3 3"]:
    """An affine map as a projective one."""
    return jnp.concatenate([matrix, jnp.array([[0.0, 0.0, 1.0]])])


def rescale_source(matrix: Float[Array, "R 3"], width_ratio: float, height_ratio: float) -> Float[Array, "R 3"]:
    """The same map for a source that was resized: `width_ratio` is its new width divided by the old one."""
    ratio = jnp.array([width_ratio, height_ratio], jnp.float32)
    depth = matrix[2] if len(matrix) == 3 else jnp.array([0.0, 0.0, 1.0])
    # Pixel edges, not centers, keep their place.
    scaled = matrix[:2] * ratio[:, None] + ((ratio - 1) / 2)[:, None] * depth
    return jnp.concatenate([scaled, matrix[2:]])


def move_points(matrix: Float[Array, "R 3"], points: Float[Array, "L 2"]) -> Float[Array, "L 2"]:
    """Where source points (x, y), such as landmarks, lie in the output.

    On a mirrored face (`mirrors(matrix)`) the caller also has to exchange left and right landmarks: it knows their
    order.
    """
    if len(matrix) == 3:
        moved = jnp.sum(points[:, None, :] * inverse(matrix)[:, :2], axis=-1) + inverse(matrix)[:, 2]
        return moved[:, :2] / moved[:, 2:]
    (a, b, tx), (c, d, ty) = matrix
    x, y = points[:, 0] - tx, points[:, 1] - ty
    return jnp.stack([d * x - b * y, a * y - c * x], axis=-1) / (a * d - b * c)


def inverse(matrix: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """The inverse of a projective map, up to a factor, which changes nothing."""
    a, b, c = matrix
    return jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)], axis=1)


def mirrors(matrix: Float[Array, "R 3"]) -> Bool[Array, ""]:
    """Whether the picture comes out mirrored."""
    if len(matrix) == 3:
        return jnp.sum(matrix[0] * jnp.cross(matrix[1], matrix[2])) < 0
    return matrix[0, 0] * matrix[1, 1] < matrix[0, 1] * matrix[1, 0]


def sample(
    image: Float[Array, "H W C"], matrix: Float[Array, "R 3"], size: int, pad: str = "zero"
) -> Float[Array, "S S C"]:
    """Reads a size x size output by bilinear interpolation: four gathers of whole pixels.

    Nothing is smoothed: details alias if the map shrinks the image by more than about 1.5.

    Args:
        image: any C.
        matrix: from output to source pixels.
        size: S.
        pad: what lies outside: 'zero', 'edge' (the nearest pixel) or 'reflect' (mirrored, without repeating the edge).
    """
    height, width, channels = image.shape
    column = jnp.arange(size, dtype=jnp.float32)[None, :]
    row = jnp.arange(size, dtype=jnp.float32)[:, None]
    x = matrix[0, 0] * column + matrix[0, 1] * row + matrix[0, 2]  # [S, S]
    y = matrix[1, 0] * column + matrix[1, 1] * row + matrix[1, 2]
    if len(matrix) == 3:
        depth = matrix[2, 0] * column + matrix[2, 1] * row + matrix[2, 2]
        x, y = x / depth, y / depth
    left, top = jnp.floor(x), jnp.floor(y)
    right_share, bottom_share = (x - left)[..., None], (y - top)[..., None]
    left, top = left.astype(jnp.int32), top.astype(jnp.int32)
    pixels = image.reshape(height * width, channels)

    def read(down: int, across: int) -> Float[Array, "S S C"]:
        i, j = top + down, left + across
        at = inside(i, height, pad) * width + inside(j, width, pad)
        value = jnp.take(pixels, at, axis=0, mode="clip")
        if pad != "zero":
            return value
        seen = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        return jnp.where(seen[..., None], value, 0.0)

    upper = read(0, 0) * (1 - right_share) + read(0, 1) * right_share
    lower = read(1, 0) * (1 - right_share) + read(1, 1) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share


def inside(index: Int[Array, "S S"], length: int, pad: str) -> Int[Array, "S S"]:
    """A position in 0 .. length - 1 for every index, as `pad` folds it back."""
    if pad == "reflect" and length > 1:
        last = length - 1
        return last - jnp.abs(jnp.mod(index, 2 * last) - last)
    return jnp.clip(index, 0, length - 1)


def resize(images: Float[Array, "B H W C"], height: int, width: int) -> Float[Array, "B h w C"]:
    """Resizes bilinearly; when shrinking, the filter widens with the ratio, so that nothing aliases."""
    shape = (images.shape[0], height, width, images.shape[3])
    return jax.image.resize(images, shape, "linear", antialias=True)
