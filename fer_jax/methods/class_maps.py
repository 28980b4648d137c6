"""Class-activation maps of any classifier inside of a training step, for losses on where a network looks.

M_k(h, w) = sum_c sg(W_kc) F_c(h, w) for ALL classes k, where F is the last map [h, w, P] and W the classifier, to which
no gradient goes (sg); its bias is left out (Zhou et al., CVPR 2016, eq. 2). The mean of M_k over the places is the
logit without its bias.

Methods with more than one linear layer behind F have no such W. In its place stands the gradient of the logit at each
place, as evaluation would compute the logit, times h w: gradient times activation (HiResCAM, Draelos and Carin 2020),
which is the same map where the classifier is linear on the mean of F. It takes C backward passes from the logits to F,
cheap for all methods but those with large layers behind F (ACNN).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.methods.method import Batch
from fer_jax.nn.linear import full_einsum

NAME = "class_maps"


@functools.cache  # one class for a model, so that equal configs have equal models
def with_class_maps(model: Any) -> Any:
    """Returns the Classifier `model` such that its aux has 'class_maps' [B, h, w, C] while it is trained."""

    class WithClassMaps(model):
        def __call__(self, batch: Batch, *, train: bool) -> tuple[Array, Any]:
            if not train or self.is_initializing():
                return super().__call__(batch, train=train)
            made: list[Any] = []
            with nn.intercept_methods(visiting(lambda out: made.append(out) or out)):
                logits, aux = super().__call__(batch, train=True)
            last = aux["maps"].get("last")
            places = [number for number, out in enumerate(made) if out is last]
            if not places:
                raise UserError("config.objective compares class-activation maps, and this model names no last map")
            evaluated, variables = self.clone(parent=None), stop_gradient(self.variables)

            def logits_of(last: Array) -> Array:
                numbers = iter(range(len(made)))
                with nn.intercept_methods(visiting(lambda out: last if next(numbers) == places[0] else out)):
                    return evaluated.apply(variables, batch, train=False)[0]

            return logits, {**aux, NAME: class_maps(logits_of, last, logits.shape)}

    return WithClassMaps


def class_maps(logits_of: Any, last: Float[Array, "B h w P"], shape: tuple[int, int]) -> Float[Array, "B h w C"]:
    """Returns the class-activation maps for the function from the last map to logits of this shape (B, C)."""
    _, pull = jax.vjp(logits_of, stop_gradient(last))
    each_class = jnp.broadcast_to(jnp.eye(shape[1])[:, None], (shape[1], *shape))  # [C, B, C]
    (slopes,) = jax.vmap(pull)(each_class)  # [C, B, h, w, P]
    weights = stop_gradient(slopes.astype(jnp.float32)) * (last.shape[1] * last.shape[2])
    return full_einsum("kbhwp,bhwp->bhwk", weights, last.astype(jnp.float32))


def visiting(visit: Any) -> Any:
    """Returns an interceptor that replaces each map [B, h, w, P] that a module returns by what `visit` makes of it."""

    def interceptor(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        is_map = context.method_name == "__call__" and isinstance(out, jax.Array) and out.ndim == 4
        return visit(out) if is_map else out

    return interceptor
