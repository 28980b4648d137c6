"""Fully connected layers initialized as in PyTorch: weights and biases uniform on +-1/sqrt(fan_in).

Products of float32 arrays are computed in float32: by default a TPU would round the factors to bfloat16 and a GPU to
TF32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from fer_jax.nn.lowering import for_cpu


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Returns an initializer, uniform on [-1/sqrt(fan_in), 1/sqrt(fan_in)], as in `torch.nn.Linear`."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def precision_of(dtype: Any) -> str | None:
    """Returns the `precision` of a product of factors of this type: full for float32 (on a CPU it always is)."""
    return "highest" if dtype == jnp.float32 and not for_cpu() else None


def full_matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `a @ b` of float32 arrays, computed in float32 on every device."""
    return jnp.matmul(a, b, precision=precision_of(jnp.float32))


def full_einsum(spec: str, *operands: jax.Array) -> jax.Array:
    """Returns `jnp.einsum` of float32 arrays, computed in float32 on every device."""
    return jnp.einsum(spec, *operands, precision=precision_of(jnp.float32))


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns y + bias, added in float32, so that the gradient of the bias is summed in float32 as well."""
    return (y.astype(jnp.float32) + bias).astype(y.dtype)


class Linear(nn.Module):
    """y = x W + b on the last axis. Parameters are float32; the product is computed and returned in `dtype`.

    Attributes:
        kernel_init, bias_init: replace the uniform initializer.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer | None = None
    bias_init: nn.initializers.Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*B P"]) -> Float[Array, "*B D"]:
        init = uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", self.kernel_init or init, (x.shape[-1], self.features))
        y = jnp.matmul(x.astype(self.dtype), kernel.astype(self.dtype), precision=precision_of(self.dtype))
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", self.bias_init or init, (self.features,)))


class ParallelLinear(nn.Module):
    """M independent linear layers in one product: y_m = x_m W_m + b_m.

    Attributes:
        branches: M.
        features: D, the outputs of each branch.
        bias_init: replaces the uniform initializer of the biases.
        dtype: of the product; parameters are float32.
    """

    branches: int
    features: int
    use_bias: bool = True
    bias_init: nn.initializers.Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B P"] | Float[Array, "B M P"]) -> Float[Array, "B M D"]:
        """Takes one input for all branches [B, P] or one per branch [B, M, P]."""
        fan_in = x.shape[-1]
        init = uniform_fan_in(fan_in)
        kernel = self.param("kernel", init, (self.branches, fan_in, self.features))
        spec = "bp,mpd->bmd" if x.ndim == 2 else "bmp,mpd->bmd"
        y = jnp.einsum(spec, x.astype(self.dtype), kernel.astype(self.dtype), precision=precision_of(self.dtype))
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", self.bias_init or init, (self.branches, self.features)))
