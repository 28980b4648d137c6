"""Fully connected layers initialised as in PyTorch: uniform on +-1/sqrt(fan_in), weights and biases alike."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Uniform on [-1/sqrt(fan_in), 1/sqrt(fan_in)], as `torch.nn.Linear.reset_parameters`."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """y = x W + b on the last axis. Parameters are float32; the product is taken and returned in `dtype`.

    Attributes:
        kernel_init, bias_init: initialisers instead of the uniform one.
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
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init or init, (self.features,)).astype(self.dtype)
        return y


class ParallelLinear(nn.Module):
    """M independent linear layers in one product: y_m = x_m W_m + b_m.

    Attributes:
        branches: M.
        features: D, the outputs of each branch.
        bias_init: initialiser of the biases instead of the uniform one.
        dtype: of the product; parameters are float32.
    """

    branches: int
    features: int
    use_bias: bool = True
    bias_init: nn.initializers.Initializer | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B P"] | Float[Array, "B M P"]) -> Float[Array, "B M D"]:
        """Takes one input for all branches [B, P], or one for each [B, M, P]."""
        fan_in = x.shape[-1]
        init = uniform_fan_in(fan_in)
        kernel = self.param("kernel", init, (self.branches, fan_in, self.features))
        spec = "bp,mpd->bmd" if x.ndim == 2 else "bmp,mpd->bmd"
        y = jnp.einsum(spec, x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", self.bias_init or init, (self.branches, self.features))
            y = y + bias.astype(self.dtype)
        return y
