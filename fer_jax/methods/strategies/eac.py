"""EAC: Erasing Attention Consistency (Zhang, Wang, Ling and Deng, ECCV 2022).

A network can memorize a wrong label from one region of the face. Two measures prevent this: only the image x is
classified, while its mirror image x' must be attended to in the same places (the imbalanced framework), and boxes are
erased, so that attention cannot rest on one region:

    L = CE(g(x), y) + lambda mean_{k,h,w} (M(x) - flip_w(M(x')))^2,   lambda = 5

with the class-activation maps M of all classes (`fer_jax.methods.class_maps`): no gradient goes to the classifier,
which would otherwise shrink to satisfy the second term. Both views send gradients to the trunk. They pass one after the
other, as in the authors' code, and each moves the running statistics.

The authors' code erases in two ways. With clean labels x' is the mirror image of x, with the same box and the same
noise ('shared', also the paper's text); with noisy labels it has a box of its own and no noise ('independent').

lambda is tied to the scale of M, a sum over the channels of the last map: other networks may want 1 to 10. A map
should have 6 x 6 places or more; 48 pixels have that with config.model.stem=small.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.methods.class_maps import NAME, with_class_maps
from fer_jax.methods.method import Batch, Clock, Config, Method, Outputs, View
from fer_jax.methods.objective import Strategy

PAIR_MODES = {"shared": View(mirror=True), "independent": View(mirror=True, erase="own", noise=False)}


def apply(method: Method, *, weight: float = 5.0, pair_mode: str = "shared", balanced: bool = False) -> Method:
    """Sets `views` and adds the term 'attention' to the loss.

    Args:
        method: any classifier of images.
        weight: lambda, the weight of the consistency loss
        pair_mode: how the mirrored view is erased, one of PAIR_MODES
        balanced: also classify the mirrored view, an ablation of the paper
    """

    def loss(outputs: Outputs, batch: Batch, clock: Clock, **options: str | float) -> dict[str, Float[Array, "B"]]:
        """Reads what the method reads."""
        image, mirror = outputs
        terms = dict(method.loss((image,), batch, clock, **options))
        if balanced:
            others = method.loss((mirror,), batch, clock, **options)
            terms = {name: (term + others[name]) / 2 for name, term in terms.items()}
        return terms | {"attention": distance(image.aux[NAME], flipped(mirror.aux[NAME]))}

    return dataclasses.replace(
        method,
        model=with_class_maps(method.model),
        views=(View(), PAIR_MODES[pair_mode]),
        loss=loss,
        weights={**method.weights, "attention": weight},
    )


def flipped(maps: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """flip_w: the map of the mirrored image, mirrored back."""
    return maps[:, :, ::-1]


def distance(maps: Float[Array, "B h w C"], others: Float[Array, "B h w C"]) -> Float[Array, "B"]:
    """The mean over places and classes of the squared difference."""
    return jnp.mean((maps - others) ** 2, axis=(1, 2, 3))


def check(config: Config) -> None:
    """Raises UserError for a negative weight."""
    if not config.strategy.eac.weight >= 0:
        raise UserError(f"config.strategy.eac.weight={config.strategy.eac.weight}: give a number of at least 0")


STRATEGY = Strategy(apply=apply, claims=("views",), needs=("classes", "images", "one view"), check=check)
