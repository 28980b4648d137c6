"""PSR: Pyramid with Super Resolution (Vo, Lee, Yang and Kim, IEEE Access 8, 2020, DOI 10.1109/ACCESS.2020.3010018).

The network sees an aligned face in several sizes: halved, super-resolved from the halved one, and original. Each size
has its own low-level part of a VGG-16-BN; all share the high-level part and the head. The prediction is the mean of the
branches' probabilities, the loss the mean of their losses.

The paper's other half, smoothing a label with the distribution of votes that its class usually gets (PDLS), is a way
to make targets: `data.smoothing_prior` (fer_jax/data/targets/prior.py).

Where the text is silent, the authors' release decides. One departure: EDSR works in the classifier's normalized space
from its pre-training on (fer_jax/methods/psr_sr.py), so that no layer has to absorb a shift of its mean.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from fer_jax.errors import UserError
from fer_jax.methods.losses import classification_loss
from fer_jax.methods.method import Batch, Classifier, Clock, Method, Outputs
from fer_jax.nn.edsr import EDSR, area_half, bicubic
from fer_jax.nn.linear import Linear
from fer_jax.nn.normalization import BatchNorm
from fer_jax.nn.pooling import adaptive_average_pool, global_average_pool, global_max_pool
from fer_jax.nn.stn import IDENTITY, STN
from fer_jax.nn.vgg import LAYERS, VGG, cut

UPSAMPLERS = ("edsr", "bicubic")
PYRAMIDS = ((1,), (1, 2, 1), (1, 2, 4, 1))


class Head(nn.Module):
    """The classifier on a map of any size: maximum and mean, then two layers with normalization and dropout.

    The maximum and the mean are over the cells of torchvision's adaptive average, which the authors' stack leaves
    between VGG and the head. On a map of 3x3 they weigh its middle less than its corners.

    Attributes:
        num_classes: C.
        average_7x7: false leaves that average out.
        hidden: width of the first layer.
        dropout: before the last layer; half of it before the first.
    """

    num_classes: int
    average_7x7: bool = True
    hidden: int = 512
    dropout: float = 0.5

    def setup(self) -> None:
        self.fc2 = Linear(self.num_classes)

    @nn.compact
    def __call__(self, maps: Float[Array, "B h w P"], *, train: bool) -> Float[Array, "B hidden"]:
        """Returns the input of the last layer, `fc2`."""
        maps = adaptive_average_pool(maps, 7) if self.average_7x7 else maps.astype(jnp.float32)
        x = jnp.concatenate([global_max_pool(maps), global_average_pool(maps)], axis=-1)  # [B, 2P]
        x = BatchNorm(name="bn1")(x, train=train)
        x = nn.Dropout(self.dropout / 2, deterministic=not train)(x)
        x = nn.relu(Linear(self.hidden, name="fc1")(x))
        x = BatchNorm(name="bn2")(x, train=train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class Model(Classifier):
    """PSR on VGG-16-BN.

    Attributes:
        num_classes: C.
        multiples: inputs of the branches: a first 1 is the reduced image, k > 1 that image super-resolved k times, a
            last 1 the full image. With m branches the image is halved m - 2 times. (1, 2, 1) is the paper's; (1,) is
            an ordinary network of one scale, with the same head.
        sep_pos: where VGG is cut into a low and a high part, as torchvision numbers its `features` (24: after pool3).
        last: VGG's last layer; 'pool4' gives 48-pixel images the map size that 96-pixel images have after 'pool5'.
        upsampler: how the image is enlarged, one of UPSAMPLERS; 'bicubic' is the control without super-resolution.
        stn: whether a spatial transformer comes first.
        width: channels of VGG's first stage; 64 is VGG-16.
        sr_blocks: residual blocks of EDSR (`fer_jax.nn.edsr`).
        sr_width: channels of EDSR.
        average_7x7: whether the head averages each branch's map to 7x7 cells first, as torchvision's VGG does.
        hidden: width of the head's first layer.
        dropout: rate before the head's last layer; half of it before the first.
        dtype: of the convolutions; sampling, head and logits are float32.
    """

    num_classes: int
    multiples: tuple[int, ...] = (1, 2, 1)
    sep_pos: int = 24
    last: str = "pool5"
    upsampler: str = "edsr"
    stn: bool = True
    width: int = 64
    sr_blocks: int = 16
    sr_width: int = 64
    average_7x7: bool = True
    hidden: int = 512
    dropout: float = 0.5
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.head = Head(self.num_classes, self.average_7x7, self.hidden, self.dropout)

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B P m"], dict[str, Any]]:
        """Returns (the head's hidden layer for each branch, aux).

        aux has the last branch's map before the head (maps['last']), aligned [B, S, S, 3], with the STN its theta
        [B, 2, 3], and with more than one branch half [B, s, s, 3] (the reduced image), super_resolved and bicubic
        [B, 2s, 2s, 3].
        """
        image = batch["image"]
        self._check(image.shape)
        last_low, first_high = cut(self.sep_pos)
        aux: dict[str, Any] = {}
        x = image.astype(jnp.float32)
        if self.stn:
            x, aux["theta"] = STN(dtype=self.dtype, name="stn")(x)
        aux["aligned"] = x

        scaled = [x]
        if len(self.multiples) > 1:
            # No gradient: the STN learns through the last branch only.
            half = stop_gradient(area_half(x, times=len(self.multiples) - 2))
            enlarged = [self._enlarge(half, k) for k in self.multiples[1:-1]]
            scaled = [half, *enlarged, x]
            aux.update(half=half, super_resolved=enlarged[0], bicubic=bicubic(half, self.multiples[1]))

        lows = [VGG(last=last_low, width=self.width, dtype=self.dtype, name=f"low_{b}") for b in self._numbers()]
        high = VGG(first=first_high, last=self.last, width=self.width, dtype=self.dtype, name="high")
        features = []
        # In this order: the shared statistics of normalization follow the branches one after the other.
        for low, s in zip(lows, scaled, strict=True):
            last = high(low(s.astype(self.dtype), train=train), train=train)
            features.append(self.head(last, train=train))
            aux["maps"] = {"last": last}
        if self.is_initializing():
            self._start_alike()
        return jnp.stack(features, axis=-1), aux

    def classify(self, features: Float[Array, "B P m"]) -> Float[Array, "B C"]:
        """Returns the logarithm of the mean of the branches' probabilities."""
        return fused(self.branch_logits(features))

    def branch_logits(self, features: Float[Array, "B P m"]) -> Float[Array, "B C m"]:
        """Returns the logits of each branch."""
        return jnp.stack([self.head.fc2(x) for x in split(features)], axis=-1)

    def __call__(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B C"], dict[str, Any]]:
        """Returns (logits [B, C], aux of `embed` and branch_logits [B, C, m])."""
        features, aux = self.embed(batch, train=train)
        logits = self.branch_logits(features)
        return fused(logits), aux | {"branch_logits": logits}

    def _enlarge(self, half: Float[Array, "B s s 3"], k: int) -> Float[Array, "B ks ks 3"]:
        if self.upsampler == "bicubic":
            return bicubic(half, k)
        return EDSR(k, self.sr_blocks, self.sr_width, dtype=self.dtype, name=f"sr_{k}")(half)

    def _start_alike(self) -> None:
        """The low parts are not shared, but all of them start from the same values (section 4)."""
        first = self.get_variable("params", "low_1")
        for b in self._numbers()[1:]:
            self.put_variable("params", f"low_{b}", jax.tree.map(jnp.copy, first))

    def _numbers(self) -> range:
        return range(1, len(self.multiples) + 1)

    def _check(self, shape: tuple[int, ...]) -> None:
        if self.last not in LAYERS or LAYERS.index(self.last) <= LAYERS.index(cut(self.sep_pos)[0]):
            raise UserError(
                f"model.last = '{self.last}' is not a layer of VGG-16 after the cut at {self.sep_pos}: give 'pool5'"
            )
        if tuple(self.multiples) not in PYRAMIDS:
            raise UserError(f"model.multiples = {self.multiples}: give {', '.join(map(str, PYRAMIDS))}")
        parts = 2 ** len(self.multiples[1:-1])
        if shape[1] % parts or shape[2] % parts:
            raise UserError(f"model.multiples = {self.multiples} needs data.image_size a multiple of {parts}")


def loss(
    outputs: Outputs,
    batch: Batch,
    clock: Clock,
    *,
    classification: str = "cross_entropy",
) -> dict[str, Float[Array, "B"]]:
    """The classification term: the mean over the branches of each one's own loss, not the loss of their mean.

    Args:
        outputs: of the views; the first one counts.
        batch: reads target.
        clock: not read.
        classification: the classification loss: 'cross_entropy', or 'multi_target' if data.target is 'multi_target'.
    """
    del clock
    branches = split(outputs[0].aux["branch_logits"])
    per_branch = [classification_loss(b, batch["target"], classification) for b in branches]
    return {"cross_entropy": jnp.mean(jnp.stack(per_branch), axis=0)}


def monitor(logits: Float[Array, "B C"], aux: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """The accuracy of each branch by itself, and how far theta has gone from the identity."""
    del logits
    label = jnp.argmax(batch["target"], axis=-1)
    hits = [jnp.mean((jnp.argmax(b, axis=-1) == label).astype(jnp.float32)) for b in split(aux["branch_logits"])]
    values = {f"branch_{number}_accuracy": hit for number, hit in enumerate(hits, start=1)}
    if "theta" in aux:
        identity = jnp.array(IDENTITY, jnp.float32).reshape(2, 3)
        values["theta_distance"] = jnp.mean(jnp.abs(aux["theta"] - identity))
    return values


def split(branches: Float[Array, "B C m"]) -> list[Float[Array, "B C"]]:
    """The values of each branch."""
    return [branches[..., b] for b in range(branches.shape[-1])]


def fused(branch_logits: Float[Array, "B C m"]) -> Float[Array, "B C"]:
    """The logarithm of the mean of the branches' probabilities."""
    log_p = jax.nn.log_softmax(branch_logits, axis=1)
    return jax.nn.logsumexp(log_p, axis=-1) - jnp.log(jnp.float32(branch_logits.shape[-1]))


METHOD = Method(
    model=Model,
    loss=loss,
    weights={"cross_entropy": 1.0},
    monitor=monitor,
    shown=("image", "aligned", "half", "bicubic", "super_resolved"),
    # Section 4: ImageNet's VGG-16-BN in every low part and in the shared high one; section 3: published EDSRs.
    published=dict.fromkeys(("low_1", "low_2", "low_3", "low_4", "high"), "vgg")
    | {"sr_2": "edsr_x2", "sr_4": "edsr_x4"},
)
