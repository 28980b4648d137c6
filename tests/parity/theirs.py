"""The networks written in PyTorch from the papers and the authors' releases, as functions of our parameter trees.

Only layouts are translated: kernels [h, w, in, out] and [in, out] become [out, in, h, w] and [out, in]. `training`
normalizes by the statistics of the batch.
"""

import numpy as np
import torch
from torch.nn import functional as F

EPS = 1e-5


def tensor(value):
    return torch.tensor(np.asarray(value))


def images(value):
    """[B, H, W, C] -> [B, C, H, W]."""
    return tensor(value).permute(0, 3, 1, 2)


class Weights:
    """A parameter tree and its batch statistics; `w["name"]` goes down, `w.unit(i)` takes one of stacked units."""

    def __init__(self, params, stats=None, training=False):
        self.params, self.stats, self.training = params, stats or {}, training

    def __getitem__(self, name):
        return Weights(self.params.get(name, {}), self.stats.get(name, {}), self.training)

    def __contains__(self, name):
        return name in self.params

    def unit(self, i):
        def take(tree):
            return {k: take(v) if isinstance(v, dict) else v[i] for k, v in tree.items()}

        return Weights(take(self.params), take(self.stats), self.training)

    def tensor(self, name):
        value = self.params.get(name)
        return None if value is None else value if isinstance(value, torch.Tensor) else tensor(value)


def conv(x, w, stride=1, padding=0):
    return F.conv2d(x, w.tensor("kernel").permute(3, 2, 0, 1), w.tensor("bias"), stride, padding)


def linear(x, w):
    return F.linear(x, w.tensor("kernel").T, w.tensor("bias"))


def norm(x, w):
    mean, var = (None, None) if w.training else (tensor(w.stats["mean"]), tensor(w.stats["var"]))
    return F.batch_norm(x, mean, var, w.tensor("scale"), w.tensor("bias"), w.training, eps=EPS)


def resnet(x, w, sizes, bottleneck=False):
    """torchvision's ResNet up to its pooled features [B, P]."""
    x = F.max_pool2d(F.relu(norm(conv(x, w["conv1"], 2, 3), w["bn1"])), 3, 2, 1)
    for stage, size in enumerate(sizes, start=1):
        for number in range(size):
            x = residual(x, w[f"layer{stage}_{number}"], 2 if stage > 1 and number == 0 else 1, bottleneck)
    return x.mean((2, 3))


def residual(x, w, stride, bottleneck):
    if bottleneck:
        y = F.relu(norm(conv(x, w["conv1"]), w["bn1"]))
        y = F.relu(norm(conv(y, w["conv2"], stride, 1), w["bn2"]))
        y = norm(conv(y, w["conv3"]), w["bn3"])
    else:
        y = F.relu(norm(conv(x, w["conv1"], stride, 1), w["bn1"]))
        y = norm(conv(y, w["conv2"], 1, 1), w["bn2"])
    if "downsample_conv" in w:
        x = norm(conv(x, w["downsample_conv"], stride), w["downsample_bn"])
    return F.relu(x + y)


def vgg(x, w, names):
    """Convolutions with normalization and ReLU, and 2x2 max-pools where a map is larger than one cell."""
    for name in names:
        if name.startswith("pool"):
            x = F.max_pool2d(x, 2, 2) if min(x.shape[2:]) > 1 else x
        else:
            x = F.relu(norm(conv(x, w[name], 1, 1), w[name.replace("conv", "bn")]))
    return x


def edsr(x, w, blocks):
    head = conv(x, w["head.0"], 1, 1)
    x = head
    for i in range(blocks):
        x = x + conv(F.relu(conv(x, w[f"body.{i}.body.0"], 1, 1)), w[f"body.{i}.body.2"], 1, 1)
    x = conv(x, w[f"body.{blocks}"], 1, 1) + head
    return conv(F.pixel_shuffle(conv(x, w["tail.0.0"], 1, 1), 2), w["tail.1"], 1, 1)


def stn(x, w):
    """PSR's spatial transformer: (the image as theta reads it, theta [B, 2, 3])."""
    y = F.relu(F.max_pool2d(conv(x, w["conv1"]), 2, 2))
    y = F.relu(F.max_pool2d(conv(y, w["conv2"]), 2, 2))
    # Our dense layer reads the map row by row with channels last.
    y = F.relu(linear(y.permute(0, 2, 3, 1).flatten(1), w["fc1"]))
    theta = linear(y, w["fc2"]).reshape(-1, 2, 3)
    return sample(x, theta), theta


def sample(x, theta):
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=True)


LOW = ("conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2", "conv3_1", "conv3_2", "conv3_3", "pool3")
HIGH = ("conv4_1", "conv4_2", "conv4_3", "pool4", "conv5_1", "conv5_2", "conv5_3", "pool5")


def psr(image, w, blocks):
    """Branch logits [B, C, 3]: the halved image, its super-resolution, and the image itself."""
    x, _ = stn(image, w["stn"])
    half = F.adaptive_avg_pool2d(x, x.shape[-1] // 2).detach()
    branches = []
    for number, scaled in enumerate((half, edsr(half, w["sr_2"], blocks), x), start=1):
        y = vgg(vgg(scaled, w[f"low_{number}"], LOW), w["high"], HIGH)
        y = F.adaptive_avg_pool2d(y, 7)  # torchvision's, which stays where fastai cuts VGG
        y = torch.cat([F.adaptive_max_pool2d(y, 1), F.adaptive_avg_pool2d(y, 1)], dim=1).flatten(1)
        y = F.relu(linear(norm(y, w["head"]["bn1"]), w["head"]["fc1"]))
        branches.append(linear(norm(y, w["head"]["bn2"]), w["head"]["fc2"]))
    return torch.stack(branches, dim=-1)


def fdrl(image, w, sizes, delta):
    """(logits [B, C], importances [B, M]) with the mean of the sigmoid as alpha and Euclidean edges."""
    x = resnet(image, w["trunk"], sizes)
    fdn, intra, inter = (w[name]["fc"] for name in ("fdn", "intra_rm", "inter_rm"))
    latent = F.relu(torch.einsum("bp,mpd->bmd", x, fdn.tensor("kernel")) + fdn.tensor("bias"))
    score = torch.sigmoid(torch.einsum("bmd,mde->bme", latent, intra.tensor("kernel")) + intra.tensor("bias"))
    alpha = score.mean(-1)
    f = alpha[..., None] * latent
    g = F.relu(torch.einsum("bmd,mde->bme", f, inter.tensor("kernel")) + inter.tensor("bias"))
    omega = torch.tanh((g[:, :, None] - g[:, None]).norm(dim=-1)) * (1 - torch.eye(g.shape[1]))
    y = delta * f + (1 - delta) * omega @ g
    return linear(y.sum(1), w["epn"]["fc"]), alpha


def fan(frames, w, sizes):
    """(frame features, frame weights, logits) of clips [B, T, C, H, W]; the concatenations written out."""
    count, length = frames.shape[:2]
    f = resnet(frames.flatten(0, 1), w["trunk"], sizes).reshape(count, length, -1)
    a = torch.sigmoid(linear(f, w["self_attention"]))
    anchor = (a * f).sum(1) / a.sum(1)
    u = torch.cat([f, anchor[:, None].expand_as(f)], dim=-1)
    b = torch.sigmoid(linear(u, w["relation_attention"]))
    clip = (a * b * u).sum(1) / (a * b).sum(1)
    return f, (a * b / (a * b).sum(1, keepdim=True))[..., 0], linear(clip, w["classifier"])


def acnn(image, points, w, low, global_layers, stride, side):
    """(logits, alpha [B, 25]) of gACNN: 24 patches of a VGG map around the points, and the map as a whole."""
    f = vgg(norm(image, w["input_bn"]), w["vgg"], low)
    framed = F.pad(f, (side,) * 4)
    place = points / stride - side / 2
    corner = torch.sign(place) * torch.floor(place.abs() + 0.5)
    limit = torch.tensor([f.shape[3], f.shape[2]], dtype=corner.dtype)
    corner = (corner.clamp(min=torch.full((2,), -float(side)), max=limit) + side).long()
    described, gates = [], []
    for number in range(points.shape[1]):
        unit = w["pg_units"].unit(number)
        columns, rows = corner[:, number, 0], corner[:, number, 1]
        patch = torch.stack([m[:, r : r + side, c : c + side] for m, c, r in zip(framed, columns, rows, strict=True)])
        y = F.relu(norm(conv(patch, unit["conv1"], 1, 1), unit["bn1"]))
        y = F.relu(norm(conv(y, unit["conv2"], 1, 1), unit["bn2"]))
        psi, alpha = gated(y, unit["out"])
        described.append(psi * alpha[:, None])
        gates.append(alpha)
    psi, alpha = gated(vgg(f, w["gg_unit"]["vgg"], global_layers), w["gg_unit"]["out"])
    x = torch.cat([*described, psi * alpha[:, None]], dim=1)
    return linear(F.relu(linear(x, w["fc1"])), w["fc2"]), torch.stack([*gates, alpha], dim=1)


def gated(phi, w):
    psi = F.relu(linear(phi.permute(0, 2, 3, 1).flatten(1), w["fc"]))
    gate = w["gate"]
    x = F.relu(norm(conv(F.max_pool2d(phi, 2, 2), gate["conv"], padding=1), gate["bn"])).mean((2, 3))
    x = F.relu(norm(linear(x, gate["fc1"]), gate["bn1"]))
    x = norm(linear(x, gate["fc2"]), gate["bn2"]) * gate.tensor("scale")
    return psi, torch.sigmoid(x[:, 0])
