"""Predictions in two programs: the part that depends only on the weights runs once, not for every batch.

On a CPU that part is mostly the transformed kernels of Winograd convolutions (nn/winograd.py): a tenth of the time of a
batch, and two thirds of the time of a single image. On an accelerator it is the weights converted to bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import JaxprEqn, Var, jaxpr_as_fun
from jax.sharding import Mesh

from fer_jax.engine.compiler import jit_for
from fer_jax.nn.lowering import never_differentiated

SPREADING = ("broadcast_in_dim", "iota")  # cheap to compute and large to keep: they stay in the second part
Part = Callable[..., list[Any]]


class Prediction:
    """A compiled function (weights, ...) -> outputs without gradients, which keeps what it computed from the weights.

    Weights are compared by the identity of their arrays, which must not be changed in place.
    """

    def __init__(
        self,
        mesh: Mesh,
        function: Callable[..., Any],
        *,
        in_shardings: Any,
        out_shardings: Any,
        check: Callable[[Any, tuple[Any, ...]], None] | None = None,
    ):
        """Compiles nothing yet.

        Args:
            mesh: the devices.
            function: takes positional arguments only.
            in_shardings: as in `jax.jit`, that of the weights first.
            out_shardings: as in `jax.jit`.
            check: called with the program for a batch and its arguments before the first run with their shapes.
        """
        self._mesh, self._function, self._check = mesh, function, check
        self._in, self._out = in_shardings, out_shardings
        self._halves: dict[Any, tuple[Callable[..., Any], Callable[..., Any]]] = {}  # by shapes of a batch
        self._checked: set[Any] = set()  # shapes of batches
        self._weights: list[Any] = []  # the arrays of the newest weights
        self._prepared: dict[Any, list[jax.Array]] = {}  # from these weights, by shapes of a batch

    def __call__(self, weights: Any, *batch: Any) -> Any:
        """Returns the outputs for a batch."""
        prepared, predict = self.prepared(weights, *batch)
        return predict(prepared, *batch)

    def prepared(self, weights: Any, *batch: Any) -> tuple[list[jax.Array], Callable[..., Any]]:
        """Returns what depends only on the weights, for batches of these shapes, and the program that takes it."""
        leaves, tree = jax.tree.flatten(batch)
        key = tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._halves:
            self._halves[key] = self._compiled(weights, batch)
        prepare, predict = self._halves[key]
        arrays = jax.tree.leaves(weights)
        if list(map(id, arrays)) != list(map(id, self._weights)):
            self._weights, self._prepared = arrays, {}
        if key not in self._prepared:
            self._prepared[key] = prepare(weights)
        if self._check is not None and key not in self._checked:
            self._check(predict, (self._prepared[key], *batch))
            self._checked.add(key)
        return self._prepared[key], predict

    def _compiled(self, weights: Any, batch: tuple[Any, ...]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        with never_differentiated():
            traced = jit_for(self._mesh, self._function).trace(weights, *batch)
        early, late = split(traced.jaxpr, len(jax.tree.leaves(weights)))
        outputs = jax.tree.structure(traced.out_info)
        prepare = jit_for(self._mesh, lambda weights: early(*jax.tree.leaves(weights)), out_shardings=self._in[0])
        predict = jit_for(
            self._mesh,
            lambda prepared, *batch: jax.tree.unflatten(outputs, late(*prepared, *jax.tree.leaves(batch))),
            in_shardings=self._in,
            out_shardings=self._out,
        )
        return prepare, predict


def split(whole: Any, weights: int) -> tuple[Part, Part]:
    """Splits a traced function, a closed jaxpr, in two: what needs only its first `weights` arguments, and the rest.

    Returns:
        (early, late) so that late(*early(*arguments[:weights]), *arguments[weights:]) are the outputs.
    """
    jaxpr = whole.jaxpr
    known = set(jaxpr.invars[:weights])
    first: list[JaxprEqn] = []
    rest: list[JaxprEqn] = []
    for equation in jaxpr.eqns:
        inputs = {value for value in equation.invars if isinstance(value, Var)}
        early = bool(inputs) and inputs <= known and equation.primitive.name not in SPREADING and not equation.effects
        (first if early else rest).append(equation)
        known.update(equation.outvars if early else ())
    used = [value for equation in rest for value in equation.invars] + list(jaxpr.outvars)
    kept = list(dict.fromkeys(value for value in used if isinstance(value, Var) and value in known))

    def part(takes: list[Var], equations: list[JaxprEqn], gives: Sequence[Any]) -> Part:
        unnamed = jaxpr.debug_info.with_unknown_names()  # the argument names are those of the whole function
        cut = jaxpr.replace(invars=takes, eqns=equations, outvars=gives, debug_info=unnamed)
        return jaxpr_as_fun(whole.replace(jaxpr=cut))

    return part(jaxpr.invars[:weights], first, kept), part([*kept, *jaxpr.invars[weights:]], rest, jaxpr.outvars)
