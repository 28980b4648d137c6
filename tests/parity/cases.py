"""What is compared with PyTorch: each case gives the same named arrays from our code and from PyTorch, where installed.

Most networks are narrow, so that a case takes seconds and its fixture stays small; one has the full width, at which
our convolutions take their fastest form.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from fer_jax.config.fields import default_config
from fer_jax.methods import acnn, fan, fdrl, psr
from fer_jax.methods.losses import cross_entropy
from fer_jax.nn.edsr import EDSR
from fer_jax.nn.resnet import ResNet18, ResNet34, ResNet50
from fer_jax.nn.stn import sample_affine
from fer_jax.nn.vgg import LAYERS, VGG
from fer_jax.training.optimizer import make_optimizer, make_schedule
from tests.parity import seeded

Arrays = dict[str, np.ndarray]
RESNETS = {18: (ResNet18, (2, 2, 2, 2)), 34: (ResNet34, (3, 4, 6, 3)), 50: (ResNet50, (3, 4, 6, 3))}


@dataclasses.dataclass(frozen=True)
class Case:
    """Arrays by name from either side; `tolerance` is relative to the largest entry of each array."""

    ours: Callable[[], Arrays]
    theirs: Callable[[], Arrays]
    tolerance: float = 2e-5


def image(size, batch=4):
    return seeded.array(f"image {size}", (batch, size, size, 3), -1, 1)


def evaluated(model, batch):
    """(variables, outputs) of a module in evaluation."""
    variables = seeded.variables(model, batch, train=False)
    return variables, jax.jit(functools.partial(model.apply, train=False))(variables, batch)


def weights(variables, training=False):
    from tests.parity import theirs

    return theirs.Weights(variables["params"], variables.get("batch_stats"), training)


# Trunks


def trunk(depth, size, width=8):
    """Pooled features in evaluation, on an even and an odd size: where strides and padding meet, they differ."""
    make, sizes = RESNETS[depth]
    model = make(width=width)

    def ours():
        return {"features": evaluated(model, image(size))[1][0]}

    def theirs():
        from tests.parity import theirs

        variables = seeded.variables(model, image(size), train=False)
        return {"features": theirs.resnet(theirs.images(image(size)), weights(variables), sizes, depth == 50)}

    return Case(ours, theirs)


def trunk_training(size=64):
    """A step's features, running means and gradients, with the statistics of the batch."""
    model = ResNet18(width=8)
    variables = seeded.variables(model, image(size), train=False)
    pull = seeded.array("pull", (4, 64))

    def loss(params):
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        (features, _), updated = model.apply(state, image(size), train=True, mutable=["batch_stats"])
        return jnp.sum(features * pull), (features, updated["batch_stats"]["bn1"]["mean"])

    def ours():
        (_, (features, mean)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
        chosen = {path: functools.reduce(dict.__getitem__, path.split("/"), gradients) for path in GRADIENTS}
        return {"features": features, "bn1.mean": mean, **chosen}

    def theirs():

        from tests.parity import theirs

        flat = {path: theirs.tensor(functools.reduce(dict.__getitem__, path.split("/"), variables["params"]))
                for path in GRADIENTS}  # fmt: skip
        leaves = {path: value.requires_grad_() for path, value in flat.items()}
        w = theirs.Weights(jax.tree_util.tree_map_with_path(
            lambda path, value: leaves.get("/".join(k.key for k in path), value), variables["params"]
        ), variables["batch_stats"], training=True)  # fmt: skip
        features = theirs.resnet(theirs.images(image(size)), w, RESNETS[18][1])
        (features * theirs.tensor(pull)).sum().backward()
        first = theirs.conv(theirs.images(image(size)), w["conv1"], 2, 3).mean((0, 2, 3))
        mean = 0.9 * theirs.tensor(variables["batch_stats"]["bn1"]["mean"]) + 0.1 * first
        return {"features": features, "bn1.mean": mean, **{path: leaf.grad for path, leaf in leaves.items()}}

    return Case(ours, theirs, tolerance=1e-4)


GRADIENTS = (
    "conv1/kernel",
    "bn1/scale",
    "layer2_0/downsample_conv/kernel",
    "layer3_1/conv2/kernel",
    "layer4_1/bn2/bias",
)


def vgg(size):
    model = VGG(width=8)

    def ours():
        return {"maps": np.moveaxis(evaluated(model, image(size))[1], -1, 1)}

    def theirs():
        from tests.parity import theirs

        variables = seeded.variables(model, image(size), train=False)
        return {"maps": theirs.vgg(theirs.images(image(size)), weights(variables), LAYERS)}

    return Case(ours, theirs)


def edsr(size=12):
    model = EDSR(blocks=3, width=8)

    def ours():
        variables = seeded.variables(model, image(size))
        return {"image": jax.jit(model.apply)(variables, image(size)).transpose(0, 3, 1, 2)}

    def theirs():
        from tests.parity import theirs

        return {"image": theirs.edsr(theirs.images(image(size)), weights(seeded.variables(model, image(size))), 3)}

    return Case(ours, theirs)


# Methods


def fdrl_case(size=64):
    model = fdrl.Model(num_classes=7, width=8, num_features=5, feature_dim=16)
    batch = {"image": image(size), "target": np.eye(7, dtype=np.float32)[[0, 3, 3, 6]]}

    def ours():
        _, (logits, aux) = evaluated(model, batch)
        return {"logits": logits, "importance": aux["importance"]}

    def theirs():
        from tests.parity import theirs

        w = weights(seeded.variables(model, batch, train=False))
        logits, importance = theirs.fdrl(theirs.images(batch["image"]), w, RESNETS[18][1], delta=0.5)
        return {"logits": logits, "importance": importance}

    return Case(ours, theirs)


def fan_case(size=64):
    model = fan.Model(num_classes=7, width=8)
    frames = seeded.array("frames", (2, 3, size, size, 3), 0, 1)
    batch = {"frames": frames, "frame_mask": np.ones((2, 3), bool)}

    def started():
        """Attention scores of about 1: saturated sigmoids would leave nothing but rounding to compare."""
        variables = seeded.variables(model, batch, train=False)
        for layer in ("self_attention", "relation_attention"):
            variables["params"][layer]["kernel"] *= np.float32(0.05)
        return variables

    def ours():
        logits, aux = jax.jit(functools.partial(model.apply, train=False))(started(), batch)
        return {"features": aux["frame_features"], "weights": aux["frame_weights"], "logits": logits}

    def theirs():
        from tests.parity import theirs

        w = weights(started())
        features, share, logits = theirs.fan(theirs.tensor(frames).permute(0, 1, 4, 2, 3), w, RESNETS[18][1])
        return {"features": features, "weights": share, "logits": logits}

    return Case(ours, theirs)


def acnn_case(size=48):
    model = acnn.Model(
        num_classes=7, width=8, cut="conv3_1", patch=3, patch_features=8, global_features=16,
        gate_channels=8, gate_hidden=8, hidden=32,
    )  # fmt: skip
    batch = {"image": image(size), "points": seeded.array("points", (4, 24, 2), -4, size + 4)}

    def ours():
        _, (logits, aux) = evaluated(model, batch)
        return {"logits": logits, "alpha": aux["alpha"]}

    def theirs():
        from tests.parity import theirs

        w = weights(seeded.variables(model, batch, train=False))
        low, after = LAYERS[: LAYERS.index("conv3_1") + 1], ("conv3_2", "conv3_3", "pool3", "conv4_1", "conv4_2")
        points = theirs.tensor(batch["points"])
        logits, alpha = theirs.acnn(theirs.images(batch["image"]), points, w, low, after, stride=4, side=3)
        return {"logits": logits, "alpha": alpha}

    return Case(ours, theirs)


def psr_case(size=96):
    model = psr.Model(num_classes=7, width=8, sr_blocks=2, sr_width=8, hidden=16)
    batch = {"image": image(size, batch=2)}

    def started():
        """The transformer near the identity, where a trained one is: far from it most samples lie outside."""
        variables = seeded.variables(model, batch, train=False)
        last = variables["params"]["stn"]["fc2"]
        last["kernel"] *= np.float32(0.01)
        last["bias"] = np.array([1, 0.1, 0.05, -0.1, 0.9, -0.05], np.float32)
        return variables

    def ours():
        _, aux = jax.jit(functools.partial(model.apply, train=False))(started(), batch)
        return {"branch_logits": aux["branch_logits"]}

    def theirs():
        from tests.parity import theirs

        return {"branch_logits": theirs.psr(theirs.images(batch["image"]), weights(started()), blocks=2)}

    return Case(ours, theirs)


# Pieces


def sampling():
    pixels = image(30, batch=3)
    # No sample of the last two lies on a pixel, where the slope of an interpolation jumps.
    theta = np.array(
        [[[1, 0, 0], [0, 1, 0]], [[0.83, 0.21, 0.13], [-0.17, 1.07, -0.31]], [[1.31, -0.4, 0.7], [0.2, 0.6, 0.3]]],
        np.float32,
    )
    pull = seeded.array("sampling", pixels.shape)

    def ours():
        gradient = jax.grad(lambda t: jnp.sum((sample_affine(pixels, t) * pull)[1:]))(jnp.asarray(theta))
        return {"image": sample_affine(jnp.asarray(pixels), jnp.asarray(theta)), "gradient": gradient[1:]}

    def theirs():
        from tests.parity import theirs

        t = theirs.tensor(theta).requires_grad_()
        read = theirs.sample(theirs.images(pixels), t).permute(0, 2, 3, 1)
        (read * theirs.tensor(pull))[1:].sum().backward()
        return {"image": read, "gradient": t.grad[1:]}

    return Case(ours, theirs, tolerance=2e-4)


def entropy():
    logits = seeded.array("logits", (16, 7)) * 4
    target = np.random.default_rng(0).dirichlet(np.ones(7), size=16).astype(np.float32)

    def ours():
        return {"loss": cross_entropy(jnp.asarray(logits), jnp.asarray(target))}

    def theirs():
        import torch

        loss = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(target), reduction="none")
        return {"loss": loss}

    return Case(ours, theirs)


PARAMS = {"kernel": seeded.array("kernel", (3, 2)), "bias": seeded.array("bias", (2,))}


def settings(optimizer, schedule=None) -> ml_collections.ConfigDict:
    config = default_config("test", "test", "baseline")
    config.optimizer.update(optimizer)
    config.schedule.update(schedule or {})
    return config


def gradient(step):
    return {name: seeded.array(f"{name} {step}", value.shape) for name, value in PARAMS.items()}


def rule(fields, torch_name, torch_options, cycle=False, steps=20):
    """Parameters after some steps; `cycle`: one-cycle with momentum against the learning rate."""

    def ours():
        schedule = {"name": "one_cycle", "momentum": (0.95, 0.85)} if cycle else {}
        tx, _ = make_optimizer(settings({**fields, "learning_rate": 0.05}, schedule), PARAMS, steps, 10)
        params, state = PARAMS, tx.init(PARAMS)
        for step in range(steps):
            updates, state = tx.update(gradient(step), state, params)
            params = optax.apply_updates(params, updates)
        return params

    def theirs():
        import torch

        leaves = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in PARAMS.items()}
        optimizer = getattr(torch.optim, torch_name)(leaves.values(), lr=0.05, **torch_options)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps) if cycle else None
        for step in range(steps):
            for name, value in gradient(step).items():
                leaves[name].grad = torch.tensor(value)
            optimizer.step()
            if schedule and step < steps - 1:
                schedule.step()
        return leaves

    return Case(ours, theirs)


def one_cycle(steps=57):
    def ours():
        schedule = make_schedule(settings({"learning_rate": 1.0}, {"name": "one_cycle"}), steps, 10)
        return {"rate": np.array([schedule(step) for step in range(steps)], np.float32)}

    def theirs():
        import torch

        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
        rates = []
        for step in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step < steps - 1:
                schedule.step()
        return {"rate": np.array(rates, np.float32)}

    return Case(ours, theirs)


COUPLED = {"decoupled": False, "weight_decay": 0.1}
CASES = {
    "resnet18_64": trunk(18, 64, width=64),
    "resnet18_71": trunk(18, 71),
    "resnet34_64": trunk(34, 64),
    "resnet50_63": trunk(50, 63),
    "resnet18_training": trunk_training(),
    "vgg16_bn_64": vgg(64),
    "vgg16_bn_71": vgg(71),
    "edsr": edsr(),
    "fdrl": fdrl_case(),
    "fan": fan_case(),
    "acnn": acnn_case(),
    "psr": psr_case(),
    "affine_sampling": sampling(),
    "cross_entropy": entropy(),
    "one_cycle": one_cycle(),
    "adam": rule({"name": "adam", "b1": 0.5}, "Adam", {"betas": (0.5, 0.999)}),
    "adam_l2": rule({"name": "adam", **COUPLED}, "Adam", {"weight_decay": 0.1}),
    "adamw": rule({"name": "adamw", "weight_decay": 0.1}, "AdamW", {"weight_decay": 0.1}),
    "sgd": rule({"name": "sgd", "momentum": 0.8}, "SGD", {"momentum": 0.8}),
    "sgd_nesterov_l2": rule(
        {"name": "sgd", "nesterov": True, **COUPLED},
        "SGD",
        {"weight_decay": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    "adam_one_cycle": rule({"name": "adam", "b2": 0.99}, "Adam", {"betas": (0.95, 0.99)}, cycle=True),
    "sgd_one_cycle": rule({"name": "sgd"}, "SGD", {"momentum": 0.95}, cycle=True),
}
