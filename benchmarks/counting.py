"""The work of a function, counted on the program that JAX traces: multiplications of matrices and convolutions, bytes.

A multiply-add counts as two operations. Two counts are made: `operations` leaves out what multiplies a zero that was
put there (padding of the image, the holes of a strided gradient), so that a convolution counts the same whichever way
it is written; `padded` is the usual count that includes the padding. Elementwise work is not counted: it is bound by
bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Literal
from jax.interpreters import partial_eval

from fer_jax.nn.lowering import compiled_for

# A call of foreign code, in which nothing can be counted.
OPAQUE = ("ffi_call", "pallas_call", "pure_callback", "io_callback", "tpu_custom_call")


@dataclasses.dataclass
class Work:
    """Floating-point operations, and the foreign calls in which they could not be counted.

    Attributes:
        operations: without multiplications by padding.
        padded: with them.
        opaque: names of primitives that could not be looked into.
    """

    operations: float = 0.0
    padded: float = 0.0
    opaque: tuple[str, ...] = ()

    def __add__(self, other: Work) -> Work:
        opaque = tuple(sorted({*self.opaque, *other.opaque}))
        return Work(self.operations + other.operations, self.padded + other.padded, opaque)

    def times(self, count: float) -> Work:
        return Work(count * self.operations, count * self.padded, self.opaque)


@contextlib.contextmanager
def as_on_accelerators() -> Iterator[None]:
    """Inside, layers that choose their form by backend are traced in XLA's own, which can be counted."""
    jax.clear_caches()  # inner functions may have been traced for this backend
    try:
        with compiled_for("tpu"):
            yield
    finally:
        jax.clear_caches()


def work(function: Callable[..., Any], *arguments: Any) -> Work:
    """Counts what `function` does with arguments of these shapes; nothing is computed."""
    traced = jax.make_jaxpr(function)(*arguments).jaxpr
    # Without what nobody reads, like the gradient to the images, which the compiler leaves out too.
    return of_jaxpr(partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))[0])


def of_jaxpr(jaxpr: Any) -> Work:
    """The work of a traced program. Of branches the dearest counts; a loop of unknown length counts once."""
    total = Work()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _dot(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name in OPAQUE:
            total += Work(opaque=(name,))
        elif name == "cond":
            branches = [of_jaxpr(branch.jaxpr) for branch in equation.params["branches"]]
            total += max(branches, key=lambda branch: branch.operations)
        else:
            inner = sum((of_jaxpr(inner) for inner in _programs(equation)), start=Work())
            total += inner.times(equation.params.get("length", 1) if name == "scan" else 1)
    return total


def _programs(equation: Any) -> Iterator[Any]:
    """The programs that an equation calls."""
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "eqns"):
                yield item
            elif hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
                yield item.jaxpr


def _dot(equation: Any) -> Work:
    (contracting, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    operations = 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracting)
    return Work(operations, operations)


def _convolution(equation: Any) -> Work:
    params = equation.params
    left, right = (variable.aval.shape for variable in equation.invars)
    out = equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    each = 2.0 * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * right[numbers.rhs_spec[1]]
    used = padded = 1.0
    for axis, (stride, (before, _), holes, spread) in enumerate(
        zip(params["window_strides"], params["padding"], params["lhs_dilation"], params["rhs_dilation"], strict=True)
    ):
        size, taps = left[numbers.lhs_spec[2 + axis]], right[numbers.rhs_spec[2 + axis]]
        outputs = out[numbers.out_spec[2 + axis]]
        used *= _inside(outputs, taps, size, stride, before, holes, spread)
        padded *= outputs * taps / holes
    return Work(each * used, each * padded)


def _inside(outputs: int, taps: int, size: int, stride: int, before: int, holes: int, spread: int) -> int:
    """Along one axis: how many pairs of an output and a kernel cell meet an input rather than padding or a hole."""
    extent = (size - 1) * holes  # place of the last input
    places = (output * stride + tap * spread - before for output in range(outputs) for tap in range(taps))
    return sum(0 <= place <= extent and place % holes == 0 for place in places)


def kept_bytes(loss: Callable[[Any], Any], params: Any) -> int:
    """Bytes of what autodiff keeps of the forward pass for the backward pass, beside what it was given anyway."""
    traced = jax.make_jaxpr(lambda params: jax.vjp(loss, params)[1])(params).jaxpr
    given = {id(variable) for variable in (*traced.invars, *traced.constvars)}
    kept = {id(variable): variable.aval for variable in traced.outvars if not isinstance(variable, Literal)}
    return sum(math.prod(aval.shape) * aval.dtype.itemsize for key, aval in kept.items() if key not in given)


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays in a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
