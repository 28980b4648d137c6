"""VAC: Visual Attention Consistency (Guo, Zheng, Fan, Yu and Wang, CVPR 2019).

Attention must transform with the image. The network sees each image in four views, x and its mirror image in two sizes
(224 and 192 in the paper), is classified on all of them, and its class-activation maps must agree:

    L = mean over views of CE + L_flip + L_scale,    L_AC(T) = mean_{valid} (M(x) - T^-1[M(T x)])^2

T mirrors in each size, or scales; maps of 7 x 7 and 6 x 6 places are enlarged to 42 x 42 by nearest neighbor. With
`rotate` there is a fifth view, turned by a random angle: its map is turned back, and places that come from outside of
it are left out. No gradient goes to the classifier (`fer_jax.methods.class_maps`).

The authors train several labels by sigmoids; of expressions one is right, and CE is the method's own loss (the authors'
form, weighted sigmoids, is `compound` with label_weights=True). Choices for that: M is divided by its standard
deviation over the places and classes of an image, so that the weights do not depend on the network
(`standardize=False` is the authors' form; beside a softmax its terms weigh more than beside a sum over labels: begin
with weights of 0.1 to 1). An image and its mirror image pass together, as in the authors' code. With 'erase' in
`augmentation.train` both lose the same box, and those of another size lose one at another place.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.data.augment import geometry
from fer_jax.errors import UserError
from fer_jax.methods.class_maps import NAME, with_class_maps
from fer_jax.methods.method import Batch, Clock, Config, Method, Outputs, View
from fer_jax.methods.objective import Strategy
from fer_jax.methods.strategies.eac import distance, flipped

ONE_SIZE = ("global_unit", "stn")  # parts of models with a fully connected layer on a map (ACNN, PSR)
Maps = Float[Array, "B h w C"]


def apply(
    method: Method,
    *,
    scale: float = 6 / 7,
    flip_weight: float = 1.0,
    scale_weight: float = 1.0,
    rotate: float = 0.0,
    rotate_weight: float = 1.0,
    standardize: bool = True,
) -> Method:
    """Sets `views`, classifies all of them, and adds terms 'attention_flip', 'attention_scale', 'attention_rotate'.

    Args:
        method: any classifier of images.
        scale: side of the smaller views as a fraction of the full side; 1 leaves them out
        flip_weight: weight of the consistency with the mirror image, one term for each size
        scale_weight: weight of the consistency between the sizes
        rotate: the largest angle in degrees of a rotated view, such as 10; 0 for none
        rotate_weight: weight of the consistency with the rotated view
        standardize: divide each image's maps by their standard deviation
    """
    sizes = (1.0, scale) if scale < 1 else (1.0,)
    pairs = [(View(size=size), View(size=size, mirror=True, stats="joint")) for size in sizes]
    views = (*(view for pair in pairs for view in pair), *([View(rotate=rotate)] if rotate else []))

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: str | float) -> dict[str, Float[Array, "B"]]:
        """Reads what the method reads, and with `rotate` batch['turn']."""
        each = [method.loss((output,), batch, clock, **options) for output in outputs]
        terms = {name: jnp.mean(jnp.stack([terms[name] for terms in each]), axis=0) for name in each[0]}
        maps = [standardized(output.aux[NAME]) if standardize else output.aux[NAME] for output in outputs]
        images, mirrors = maps[0 : 2 * len(sizes) : 2], maps[1 : 2 * len(sizes) : 2]
        by_size = [distance(maps, flipped(others)) for maps, others in zip(images, mirrors, strict=True)]
        terms["attention_flip"] = jnp.sum(jnp.stack(by_size), axis=0)
        if len(sizes) > 1:
            terms["attention_scale"] = (scaled_distance(*images) + scaled_distance(*mirrors)) / 2
        if rotate:
            terms["attention_rotate"] = turned_distance(maps[0], maps[-1], rotate * batch["turn"])
        return terms

    weights = {"attention_flip": flip_weight, "attention_scale": scale_weight, "attention_rotate": rotate_weight}
    model = with_class_maps(method.model)
    return dataclasses.replace(method, model=model, views=views, loss=loss, weights={**method.weights, **weights})


def standardized(maps: Maps) -> Maps:
    """M divided by its standard deviation over the places and classes of each image; a constant M stays as it is."""
    variance = jnp.var(maps, axis=(1, 2, 3), keepdims=True)
    constant = variance < 1e-12  # the inner `where` keeps the unused slope of the root out of the gradient
    return jnp.where(constant, maps, maps / jnp.sqrt(jnp.where(constant, 1.0, variance)))


def scaled_distance(maps: Maps, others: Float[Array, "B h2 w2 C"]) -> Float[Array, "B"]:
    """The distance of maps of two sizes, both enlarged to the least common multiple of their sides."""
    side = math.lcm(maps.shape[1], others.shape[1])
    return distance(enlarged(maps, side), enlarged(others, side))


def enlarged(maps: Maps, side: int) -> Float[Array, "B s s C"]:
    """Nearest neighbor, to a multiple of the side."""
    times = side // maps.shape[1]
    return jnp.repeat(jnp.repeat(maps, times, axis=1), times, axis=2)


def turned_distance(maps: Maps, turned: Maps, degrees: Float[Array, "B"]) -> Float[Array, "B"]:
    """The distance from the maps of turned images, turned back, over the places that these saw."""

    def back(m: Float[Array, "h w C"], angle: Float[Array, ""]) -> Float[Array, "h w C"]:
        return geometry.sample(m, geometry.turn(-angle, len(m)), len(m))

    seen = jax.vmap(back)(jnp.ones_like(turned), degrees) > 0.999  # all four neighbors lie inside
    difference = jnp.where(seen, (maps - jax.vmap(back)(turned, degrees)) ** 2, 0.0)
    counted = jnp.sum(seen, axis=(1, 2, 3), dtype=jnp.float32)
    return jnp.sum(difference, axis=(1, 2, 3)) / jnp.maximum(counted, 1.0)


def check(config: Config) -> None:
    """Raises UserError for parameters out of range, and for sizes that the network cannot take or that are the same."""
    options, side = config.strategy.vac, config.data.image_size
    here = "config.strategy.vac"
    for name in ("flip_weight", "scale_weight", "rotate_weight"):
        if not options[name] >= 0:
            raise UserError(f"{here}.{name}={options[name]}: give a number of at least 0")
    if not 0 <= options.rotate <= 180:
        raise UserError(f"{here}.rotate={options.rotate}: give degrees, 0 to 180")
    if not 0 < options.scale <= 1 or (options.scale < 1 and round(options.scale * side) in (0, side)):
        raise UserError(f"{here}.scale={options.scale}: give a share of {side} pixels that makes smaller ones, or 1")
    fixed = [field for field in ONE_SIZE if config.model.get(field)]
    if options.scale < 1 and (fixed or config.method == "rul"):
        field = f" or config.model.{fixed[0]}=False" if fixed else ""
        raise UserError(
            f"config.objective: vac shows images in two sizes, and {config.method} has a layer that takes one: set "
            f"{here}.scale=1{field}"
        )


STRATEGY = Strategy(apply=apply, claims=("views",), needs=("classes", "images", "one view"), check=check)
