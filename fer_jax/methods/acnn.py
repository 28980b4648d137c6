"""ACNN: CNN with attention mechanism for faces with occlusions (Li, Zeng, Shan, Chen, IEEE T-IP 28(5), 2019).

VGG-16 up to conv4_2 makes a map F. Around each of 24 facial points a 6x6 patch of it goes through a unit of its own
(PG-Unit), which describes the patch (psi) and weighs the description with a gate (alpha) in (0, 1): a covered patch
should be closed. gACNN adds one such unit for the whole face (GG-Unit). The gates get no label of what is covered: the
only loss is the cross-entropy of the expression.

Choices where the sources are silent or disagree:
  * The gate's 1x1 convolution is followed by a global average, as in the released network, not by the fully
    connected layer of the figure. It pads as the release does: the constant cells around the map (16 beside 9) enter
    the mean and the variance of the normalization that follows, and with them the threshold of the ReLU.
    `gate_padding=False` is the figure's, without them.
  * The gradient of the crop is the true one; the released layer reads one row of each patch for all six.
  * Input in any normalization: a BatchNorm with scale and bias over the three channels follows.
  * Running statistics follow with 0.9, as everywhere here, and not with Caffe's 0.999, which needs thousands of steps.
  * Points move with the image, mirrored and cropped; gACNN's release crops 224 of 232 pixels at random and leaves them
    where they are, up to a cell of F away.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from fer_jax.errors import UserError, nearest
from fer_jax.methods.baseline import loss
from fer_jax.methods.method import Classifier, Method
from fer_jax.nn.convolution import Conv
from fer_jax.nn.linear import Linear
from fer_jax.nn.lowering import for_cpu
from fer_jax.nn.normalization import BatchNorm
from fer_jax.nn.padding import pad_axis
from fer_jax.nn.pooling import global_average_pool, max_pool
from fer_jax.nn.vgg import LAYERS, VGG

POINTS = 24
GateFactory = Callable[..., nn.Module]  # called with a name
he_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # Caffe's "msra"
zeros = nn.initializers.zeros_init()


class Gate(nn.Module):
    """alpha = sigmoid(.) of phi: pool, 1x1 convolution, average over the map, two fully connected layers."""

    channels: int = 128
    hidden: int = 64
    padding: bool = True
    affine: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, phi: Float[Array, "B h w C"], train: bool) -> Float[Array, "B"]:
        norm = functools.partial(BatchNorm, use_affine=self.affine, dtype=self.dtype)
        linear = functools.partial(Linear, kernel_init=he_fan_in, bias_init=zeros, dtype=self.dtype)
        x = max_pool(phi, window=2, stride=2, padding=0)
        if self.padding:
            x = pad_axis(pad_axis(x, 1, (1, 1), 0.0), 2, (1, 1), 0.0)
        x = Conv(self.channels, (1, 1), use_bias=True, kernel_init=he_fan_in, dtype=self.dtype, name="conv")(x)
        x = nn.relu(norm(name="bn")(x, train=train))
        x = global_average_pool(x)
        x = nn.relu(norm(name="bn1")(linear(self.hidden, name="fc1")(x), train=train))
        # Normalized over the batch, so that gates start spread around a half and not saturated.
        x = BatchNorm(use_affine=self.affine, name="bn2")(linear(1, name="fc2")(x).astype(jnp.float32), train=train)
        if not self.affine:
            x = x * self.param("scale", nn.initializers.ones_init(), (1,))
        return nn.sigmoid(x[:, 0])


class GatedDescription(nn.Module):
    """What both kinds of units end in: psi from the whole of phi, and the gate alpha."""

    features: int
    gate: GateFactory | None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, phi: Float[Array, "B h w C"], train: bool) -> tuple[Float[Array, "B D"], Float[Array, "B"]]:
        """Returns (psi [B, D], alpha [B]); without a gate alpha is 1."""
        fc = Linear(self.features, kernel_init=he_fan_in, bias_init=zeros, dtype=self.dtype, name="fc")
        psi = nn.relu(fc(phi.reshape(phi.shape[0], -1))).astype(jnp.float32)
        alpha = jnp.ones(phi.shape[0], jnp.float32) if self.gate is None else self.gate(name="gate")(phi, train)
        return psi, alpha


class PGUnit(nn.Module):
    """Patch-Gated Unit: a patch of F to its description psi_i and its gate alpha_i.

    Convolutions are matrix products: only those are fast on a CPU where `vmap` gives each unit a kernel of its own
    (docs/performance.md).
    """

    channels: int
    features: int
    gate: GateFactory | None
    affine: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, patch: Float[Array, "B K K C"], train: bool) -> tuple[Float[Array, "B D"], Float[Array, "B"]]:
        """Returns (psi_i [B, D], alpha_i [B])."""
        conv = functools.partial(
            Conv, self.channels, use_bias=True, as_product=True, kernel_init=he_fan_in, dtype=self.dtype
        )
        norm = functools.partial(BatchNorm, use_affine=self.affine, dtype=self.dtype)
        phi = nn.relu(norm(name="bn1")(conv(name="conv1")(patch), train=train))
        phi = nn.relu(norm(name="bn2")(conv(name="conv2")(phi), train=train))
        return GatedDescription(self.features, self.gate, self.dtype, name="out")(phi, train)


# A unit for each patch, [B, 24, K, K, C] -> (psi [B, 24, D], alpha [B, 24]), in one computation: parameters and
# statistics have a leading axis [24].
PGUnits = nn.vmap(
    PGUnit,
    in_axes=(1, None),  # pyright: ignore[reportArgumentType]  (annotated as int alone)
    out_axes=1,
    axis_size=POINTS,
    variable_axes={"params": 0, "batch_stats": 0},
    split_rngs={"params": True},
)


class GGUnit(nn.Module):
    """Global-Gated Unit: all of F through the next layers of VGG-16 to psi_G and alpha_G."""

    cut: str
    width: int
    features: int
    gate: GateFactory | None
    affine: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, f: Float[Array, "B H W C"], train: bool) -> tuple[Float[Array, "B D"], Float[Array, "B"]]:
        """Returns (psi_G [B, D], alpha_G [B])."""
        first, last = layers_after(self.cut)
        norm = "batch" if self.affine else "plain_batch"
        vgg = VGG(first, last, norm, self.width, kernel_init=he_fan_in, dtype=self.dtype, name="vgg")
        phi = vgg(f, train=train)
        return GatedDescription(self.features, self.gate, self.dtype, name="out")(phi, train)


class Model(Classifier):
    """pACNN (patches) or gACNN (patches and the whole face), with gates or without.

    Attributes:
        num_classes: C.
        global_unit: gACNN if true, pACNN if not.
        gates: false sets every alpha to 1, the paper's ablation.
        told: replace the gates by the truth, an upper bound for them: alpha is the unoccluded share of a patch, and 1
            for the whole face. Without `occlusion` in the batch (data.occlusion_masks) nothing is occluded.
        affine: give each BatchNorm a scale and a bias, which Caffe's BatchNorm lacks.
        width: channels of VGG-16's first stage (64 as published); the others and the units keep their ratio to it.
        cut: the layer of VGG-16 that makes F. With conv4_2 F has an eighth of the image's side; small images need
            an earlier cut, after which the GG-Unit takes the rest of the stage and two convolutions of the next.
        patch: cells along a patch's side.
        patch_features: D of a patch, the length of psi_i.
        global_features: D of the whole face, the length of psi_G.
        gate_channels: channels of a gate's convolution.
        gate_hidden: width of a gate's first linear layer.
        gate_padding: whether a gate's convolution pads its map with a cell of zeros on each side.
        hidden: width of the classifier's first layer.
        dropout: rate before the last layer (needs the RNG stream 'dropout').
        dtype: of the convolutions and of the products; gates, logits and statistics are float32.
    """

    num_classes: int
    global_unit: bool = True
    gates: bool = True
    told: bool = False
    affine: bool = False
    width: int = 64
    cut: str = "conv4_2"
    patch: int = 6
    patch_features: int = 64
    global_features: int = 512
    gate_channels: int = 128
    gate_hidden: int = 64
    gate_padding: bool = True
    hidden: int = 1024
    dropout: float = 0.5
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.classifier = Linear(self.num_classes, kernel_init=he_fan_in, bias_init=zeros, name="fc2")

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B P"], dict[str, Any]]:
        """Returns (the classifier's hidden layer [B, hidden], aux).

        Needs batch['points'] [B, 24, 2], (x, y) in pixels of batch['image'].

        aux has the map F (maps['last']), points, psi [B, 24, D], alpha [B, 24] or, with psi_global [B, D], [B, 25], the
        global gate last, patch_weights [B, H, W] of the cells of F, and features, the concatenation of all alpha psi;
        with batch['occlusion'] [B, S, S, 1], the share of each pixel that an object hides, also coverage [B, 24].

        An optional batch['alpha'] [24 or 25] replaces the gates wherever it is not NaN: a zero shows what the
        classifier does without that patch.
        """
        self._check(batch)
        gate = None
        if self.gates and not self.told:
            gate = functools.partial(
                Gate, self.gate_channels, self.gate_hidden, self.gate_padding, self.affine, self.dtype
            )

        image = BatchNorm(dtype=self.dtype, name="input_bn")(batch["image"].astype(self.dtype), train=train)
        norm = "batch" if self.affine else "plain_batch"
        vgg = VGG("conv1_1", self.cut, norm, self.width, kernel_init=he_fan_in, dtype=self.dtype, name="vgg")
        f = vgg(image, train=train)
        patches = crops(f, batch["points"], stride_of(self.cut), self.patch)  # [B, 24, K, K, C]
        units = PGUnits(f.shape[-1], self.patch_features, gate, self.affine, self.dtype, name="pg_units")
        psi, alpha = units(patches, train)  # [B, 24, D], [B, 24]
        aux: dict[str, Any] = {"maps": {"last": f}, "points": batch["points"], "psi": psi}
        if "occlusion" in batch:
            aux["coverage"] = patch_coverage(batch["occlusion"], batch["points"], stride_of(self.cut), self.patch)
            alpha = 1 - aux["coverage"] if self.told else alpha
        if self.global_unit:
            unit = GGUnit(self.cut, self.width, self.global_features, gate, self.affine, self.dtype, name="gg_unit")
            aux["psi_global"], alpha_global = unit(f, train)
            alpha = jnp.concatenate([alpha, alpha_global[:, None]], axis=1)
        if "alpha" in batch:
            alpha = jnp.where(jnp.isnan(batch["alpha"]), alpha, batch["alpha"])
        aux["alpha"] = alpha
        first = corners(batch["points"], stride_of(self.cut), self.patch)
        aux["patch_weights"] = patch_weights(alpha[:, :POINTS], first, self.patch, f.shape[1:3])

        features = (alpha[:, :POINTS, None] * psi).reshape(psi.shape[0], -1)
        if self.global_unit:
            features = jnp.concatenate([features, alpha[:, POINTS:] * aux["psi_global"]], axis=1)
        aux["features"] = features
        x = Linear(self.hidden, kernel_init=he_fan_in, bias_init=zeros, dtype=self.dtype, name="fc1")(features)
        x = nn.relu(nn.Dropout(self.dropout, deterministic=not train)(x))
        return x.astype(jnp.float32), aux

    def _check(self, batch: dict[str, Array]) -> None:
        side = min(batch["image"].shape[1:3]) // stride_of(self.cut)
        if "points" not in batch:
            raise UserError("acnn needs 24 facial points: set config.data.points='face24'")
        if self.patch < 2:
            raise UserError(f"model.patch={self.patch}: a patch is pooled 2x2, give at least 2")
        if side < 4:
            raise UserError(
                f"model.cut='{self.cut}' makes a map of {side}x{side} cells out of this image: cut earlier, or set "
                "a larger config.data.image_size"
            )


def layers_after(cut: str) -> tuple[str, str]:
    """The first and the last layer of VGG-16 in the GG-Unit: after conv4_2 these are conv4_3 and conv5_2."""
    known = [name for name in LAYERS[:-1] if name.startswith("conv") and not name.startswith("conv5")]
    if cut not in known:
        raise UserError(f"model.cut='{cut}': {nearest(cut, known)}")
    return LAYERS[LAYERS.index(cut) + 1], f"conv{int(cut[4]) + 1}_2"


def stride_of(cut: str) -> int:
    """Pixels of the image along a side of a cell of F."""
    first, _ = layers_after(cut)
    return 2 ** sum(name.startswith("pool") for name in LAYERS[: LAYERS.index(first)])


def corners(points: Float[Array, "B P 2"], stride: int, patch: int) -> Float[Array, "B P 2"]:
    """(column, row) of the first cell of each patch: R(x / stride - patch / 2), halves rounded away from zero."""
    place = points / stride - patch / 2
    return jnp.sign(place) * jnp.floor(jnp.abs(place) + 0.5)


def crops(
    f: Float[Array, "B H W C"], points: Float[Array, "B P 2"], stride: int, patch: int
) -> Float[Array, "B P K K C"]:
    """The K x K cells of F around each point, zero outside of F. No gradient goes to the points."""
    first = corners(jax.lax.stop_gradient(points.astype(jnp.float32)), stride, patch)
    # The gradient of slices adds up in no fixed order on a GPU; on a CPU it takes a twentieth of the products' time.
    return (crop_slices if for_cpu() else crop_products)(f, first, patch)


def patch_coverage(
    occlusion: Float[Array, "B S S 1"], points: Float[Array, "B P 2"], stride: int, patch: int
) -> Float[Array, "B P"]:
    """The share of each patch that objects hide, of what of it lies inside the image; 0 where nothing does."""
    rows, columns = (side // stride for side in occlusion.shape[1:3])
    inside = occlusion[:, : rows * stride, : columns * stride]
    cells = jnp.mean(inside.reshape(-1, rows, stride, columns, stride, 1), axis=(2, 4))
    patches = crops(jnp.concatenate([cells, jnp.ones_like(cells)], axis=-1), points, stride, patch)
    hidden, whole = jnp.moveaxis(jnp.sum(patches, axis=(2, 3)), -1, 0)
    return hidden / jnp.maximum(whole, 1.0)


def patch_weights(
    alpha: Float[Array, "B P"], first: Float[Array, "B P 2"], patch: int, shape: tuple[int, ...]
) -> Float[Array, "B H W"]:
    """The mean gate of the patches that see a cell of F, 0 where none does."""
    cells = (
        jnp.arange(size, dtype=jnp.float32) - first[..., axis, None] for axis, size in ((0, shape[1]), (1, shape[0]))
    )
    x, y = ((within >= 0) & (within < patch) for within in cells)
    inside = (y[..., :, None] & x[..., None, :]).astype(jnp.float32)  # [B, P, H, W]
    return jnp.sum(alpha[..., None, None] * inside, axis=1) / jnp.maximum(jnp.sum(inside, axis=1), 1.0)


def crop_slices(f: Float[Array, "B H W C"], first: Float[Array, "B P 2"], patch: int) -> Float[Array, "B P K K C"]:
    """The cells from (column, row) `first` on, as slices of F in a frame of zeros."""
    framed = jnp.pad(f, ((0, 0), (patch, patch), (patch, patch), (0, 0)))
    limits = jnp.array([f.shape[2], f.shape[1]], jnp.float32)
    corner = (jnp.clip(first, -patch, limits) + patch).astype(jnp.int32)

    def slices(f: Float[Array, "h w C"], corner: Int[Array, "P 2"]) -> Float[Array, "P K K C"]:
        shape = (patch, patch, f.shape[-1])
        return jax.vmap(lambda c: jax.lax.dynamic_slice(f, (c[1], c[0], jnp.zeros_like(c[0])), shape))(corner)

    return jax.vmap(slices)(framed, corner)


def crop_products(f: Float[Array, "B H W C"], first: Float[Array, "B P 2"], patch: int) -> Float[Array, "B P K K C"]:
    """The same as two products with matrices of zeros and ones, exact because each sum has at most one term."""
    cells = first[..., None] + jnp.arange(patch, dtype=jnp.float32)  # [B, P, 2, K]
    columns, rows = (
        (cells[:, :, axis, :, None] == jnp.arange(size, dtype=jnp.float32)).astype(f.dtype)  # [B, P, K, size]
        for axis, size in ((0, f.shape[2]), (1, f.shape[1]))
    )
    exact = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    bands = exact("bpih,bhwc->bpiwc", rows, f)
    return exact("bpjw,bpiwc->bpijc", columns, bands)


def monitor(logits: Float[Array, "B C"], aux: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """Shows whether the gates adapt: their mean, and how much a gate varies between faces."""
    del logits, batch
    alpha = aux["alpha"]
    return {"alpha_mean": jnp.mean(alpha), "alpha_spread": jnp.mean(jnp.std(alpha, axis=0))}


METHOD = Method(
    model=Model,
    loss=loss,  # the gates learn from the expression alone
    weights={"cross_entropy": 1.0},
    monitor=monitor,
    profiles={"alpha": "Gate of each patch, the whole face last"},
    shown=("points", "alpha"),
    attention="patch_weights",
    published={"vgg": "vgg", "gg_unit/vgg": "vgg"},  # section 5: all its convolutions of VGG-16, from ImageNet
)
