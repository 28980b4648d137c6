"""FAN: Frame Attention Networks for videos (Meng, Peng, Wang and Qiao, ICIP 2019, arXiv 1907.00193).

A clip is a set of faces f_1 .. f_T, embedded by one ResNet. Self-attention gives each a coarse weight a_i, and the
weighted mean is the clip's anchor f'_v. Relation-attention looks at each face beside the anchor, u_i = [f_i : f'_v],
and refines the weight by b_i. The clip vector f_v is the mean of the u_i weighted by a_i b_i; one linear layer
classifies it. The weights are sigmoids divided by their sum, no softmax, and the order of the frames does not matter.

Choices where the sources are silent or disagree:
  * With w_i = a_i b_i / sum(a b) the clip vector is [sum_i w_i f_i : f'_v], and q1 . u_i is q1a . f_i + q1b . f'_v:
    the concatenations u_i are never made.
  * Frames without a face, and padding, have weight 0 in every sum and no part in the batch statistics.
  * A clip without any face has the clip vector 0, so the classifier's largest bias decides its class.
  * The authors' test path leaves b_i out of the sum above the fraction bar but not below it: `official_eval`.
  * All frames of a step go through the network as one batch; the authors send the three slots through one by one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from fer_jax.methods.baseline import loss
from fer_jax.methods.method import Classifier, Method
from fer_jax.nn.linear import Linear, full_einsum, full_matmul, uniform_fan_in
from fer_jax.nn.trunk import TrunkFactory, trunk_of

# score_fusion  the paper's baseline: every frame is classified by itself, a clip by the mean of their probabilities.
# mean          the clip vector is the plain mean of the frames (a control of ours).
# self          the anchor f'_v is classified.
# relation      FAN in full.
ATTENTION = ("score_fusion", "mean", "self", "relation")
TINY = 1e-12  # keeps the weights of a clip without a face at 0 instead of 0 / 0


class RelationScore(nn.Module):
    """q1 . [f_i : f'_v] + b1 for every frame, the concatenation never made; `kernel` is the paper's q1 [2P, 1]."""

    dropout: float

    @nn.compact
    def __call__(self, frames: Float[Array, "B T P"], anchor: Float[Array, "B P"], *, train: bool):
        """Returns the scores [B, T]. Dropout falls on each u_i by itself."""
        size = frames.shape[-1]
        init = uniform_fan_in(2 * size)
        q1 = self.param("kernel", init, (2 * size, 1))[:, 0]
        b1 = self.param("bias", init, (1,))
        drop = nn.Dropout(self.dropout, deterministic=not train)
        if train and self.dropout:
            beside = full_matmul(drop(jnp.broadcast_to(anchor[:, None], frames.shape)), q1[size:])  # [B, T]
        else:
            beside = full_matmul(anchor, q1[size:])[:, None]
        return full_matmul(drop(frames), q1[:size]) + beside + b1


class Model(Classifier):
    """FAN on a ResNet.

    Attributes:
        num_classes: C.
        attention: how frames are weighted, one of ATTENTION; 'relation' is the paper's.
        official_eval: reproduce the authors' test path, which weights frames by a_i but divides by the sum of a_i b_i.
        dropout_self: rate before the layer of self-attention.
        dropout_relation: rate before the layer of relation attention.
        dropout_clip: rate on f_v before the classifier of 'relation'.
        dropout_anchor: rate on f'_v before the classifier of 'self' and 'mean'.
        dropout_frames: rate on each f_i before the classifier of 'score_fusion'; the authors' baseline has none.
        depth: layers of the ResNet (`fer_jax.nn.resnet`).
        width: channels of its first stage.
        stem: 'imagenet', 'small' for images of about 48 pixels, or 'caffe' (VGGFace2's).
        backbone: a factory called with dtype and name, used instead of the ResNet; its modules take a `mask` as well.
        dtype: of the trunk; attention, sums and logits are float32.
    """

    num_classes: int
    attention: str = "relation"
    official_eval: bool = False
    dropout_self: float = 0.5
    dropout_relation: float = 0.5
    dropout_clip: float = 0.6
    dropout_anchor: float = 0.5
    dropout_frames: float = 0.0
    depth: int = 18
    width: int = 64
    stem: str = "imagenet"
    backbone: TrunkFactory | None = None
    dtype: Any = jnp.float32

    @property
    def single_frames(self) -> bool:
        """Whether training takes frames one by one, each an example of its own."""
        return self.attention == "score_fusion"

    def setup(self) -> None:
        self.classifier = Linear(self.num_classes)

    @nn.compact
    def embed(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B *T P"], dict[str, Any]]:
        """Returns (what is classified, aux).

        Args:
            batch: `frames` [B, T, H, W, 3], or what the trunk made of them, `frame_features` [B, T, P];
                `frame_mask` bool [B, T], false for padding and for frames without a face.
            train: whether dropout and batch statistics are those of training.

        Returns:
            f_v [B, 2P], or as `attention` says f'_v [B, P] or each f_i [B, T, P]; and aux with frame_features f
            [B, T, P] and, as far as `attention` has them, frame_self a, frame_relation b and frame_weights w, all
            [B, T], anchor f'_v [B, P] and clip f_v [B, 2P];
            with `frames`, the trunk's maps.
        """
        mask = batch["frame_mask"]
        f, maps = (
            (batch["frame_features"], {}) if "frame_features" in batch else self._look(batch["frames"], mask, train)
        )
        f = jnp.where(mask[..., None], f.astype(jnp.float32), 0.0)  # what a masked frame shows is nothing
        aux: dict[str, Any] = {"frame_features": f, "maps": maps}

        def drop(rate: float) -> nn.Dropout:
            return nn.Dropout(rate, deterministic=not train)

        if self.attention == "score_fusion":
            return drop(self.dropout_frames)(f), aux | {"frame_weights": normalized(mask.astype(jnp.float32))}

        a = mask.astype(jnp.float32)
        if self.attention != "mean":
            score = Linear(1, name="self_attention")(drop(self.dropout_self)(f))[..., 0]
            a = jnp.where(mask, nn.sigmoid(score), 0.0)  # a_i = sigmoid(q0 . f_i + b0)
        w = normalized(a)
        anchor = weighted_sum(w, f)  # f'_v = sum_i a_i f_i / sum_i a_i
        aux |= {"frame_self": a, "anchor": anchor}
        if self.attention != "relation":
            return drop(self.dropout_anchor)(anchor), aux | {"frame_weights": w}

        score = RelationScore(self.dropout_relation, name="relation_attention")(f, anchor, train=train)
        b = jnp.where(mask, nn.sigmoid(score), 0.0)  # b_i = sigmoid(q1 . u_i + b1)
        w = normalized(a * b)
        sides = (weighted_sum(w, f), anchor)  # f_v = sum_i a_i b_i u_i / sum_i a_i b_i
        if self.official_eval and not train:
            w = a / (jnp.sum(a * b, axis=-1, keepdims=True) + TINY)
            sides = (weighted_sum(w, f), jnp.sum(w, axis=-1, keepdims=True) * anchor)
        clip = jnp.concatenate(sides, axis=-1)
        aux |= {"frame_relation": b, "frame_weights": w, "clip": clip}
        return drop(self.dropout_clip)(clip), aux

    def __call__(self, batch: dict[str, Array], *, train: bool) -> tuple[Float[Array, "B C"], dict[str, Any]]:
        """Returns (logits [B, C], aux of `embed`, with 'score_fusion' also frame_logits [B, T, C])."""
        logits, aux = super().__call__(batch, train=train)
        if self.attention != "score_fusion":
            return logits, dict(aux)
        return fused(logits, batch["frame_mask"]), {**aux, "frame_logits": logits}

    def _look(self, frames: Array, mask: Bool[Array, "B T"], train: bool) -> tuple[Float[Array, "B T P"], dict]:
        """The trunk's features and maps of all frames; masked ones have no part in the batch statistics."""
        flat = frames.reshape(-1, *frames.shape[2:]).astype(self.dtype)
        features, maps = trunk_of(self)(flat, train=train, mask=mask.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(*mask.shape, *x.shape[1:]), (features, maps))


def fused(frame_logits: Float[Array, "B T C"], mask: Bool[Array, "B T"]) -> Float[Array, "B C"]:
    """The logarithm of the mean of the frames' softmax vectors: their sum has the same largest class."""
    any_face = jnp.any(mask, axis=-1, keepdims=True)
    # Without a face the classifier is asked about a zero vector once, as in the other modes.
    counted = jnp.where(any_face, mask, jnp.arange(mask.shape[1]) == 0)
    return (
        jax.nn.logsumexp(jax.nn.log_softmax(frame_logits), axis=1, where=counted[..., None])
        - jnp.log(jnp.sum(counted.astype(jnp.float32), axis=1))[:, None]
    )


def normalized(a: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """a_i / sum_i a_i; a clip without any weight keeps none."""
    return a / (jnp.sum(a, axis=-1, keepdims=True) + TINY)


def weighted_sum(w: Float[Array, "B T"], f: Float[Array, "B T P"]) -> Float[Array, "B P"]:
    """sum_i w_i f_i."""
    return full_einsum("bt,btp->bp", w, f)


def monitor(logits: Float[Array, "B C"], aux: dict[str, Any], batch: dict[str, Array]) -> dict[str, Float[Array, ""]]:
    """What the attention does: mean weights before division, and how unequal the divided ones are.

    `inequality` is the standard deviation of T w_i among a clip's T faces, averaged over clips: 0 weighs all alike.
    """
    del logits
    mask = batch["frame_mask"].astype(jnp.float32)
    faces = jnp.sum(mask, axis=-1)
    relative = aux["frame_weights"] * faces[:, None]
    spread = jnp.sqrt(jnp.sum(mask * (relative - 1) ** 2, axis=-1) / jnp.maximum(faces, 1))
    seen = (faces > 0).astype(jnp.float32)
    values = {"inequality": jnp.sum(spread * seen) / jnp.maximum(jnp.sum(seen), 1)}
    values["masked_share"] = 1 - jnp.mean(mask)
    for name in ("self", "relation"):
        if f"frame_{name}" in aux:
            values[f"{name}_mean"] = jnp.sum(aux[f"frame_{name}"]) / jnp.maximum(jnp.sum(mask), 1)
    return values


METHOD = Method(
    model=Model,
    loss=loss,  # the attention learns from nothing else
    weights={"cross_entropy": 1.0},
    takes="frames",
    single_frames=lambda model: model.single_frames,
    changeable=("official_eval",),
    monitor=monitor,
    shown=("frame_weights",),
    attention="frame_weights",
)
