"""PSR's claims (Vo et al., IEEE Access 2020): a pyramid holds out on small faces, and PDLS knows the votes.

    python -m experiments.claims.psr

Sizes: the test faces of 64 pixels are reduced to 16, 24, 32 and 48 pixels and enlarged again, as a camera farther away
would have seen them; nothing was trained on such faces. The arms are PSR with super-resolution that was learned on the
training faces first, the same pyramid with bicubic interpolation, and the one network of usual practice; they share
the recipe, the head and the steps. `branch N, small above full` is what the smaller branches are for: how much more
accuracy is lost on small faces, over all sizes, than at full size, when branch N has no say.

Targets: the synthetic annotators voted on every face. PDLS and ordinary label smoothing, at the same epsilon and on the
same network, are compared by the divergence of their predictions from those votes, which neither has seen. That favors
PDLS: its prior is FER+'s, the very matrix that the synthetic annotators' confusions were drawn from, so it is right of
these faces as no prior is of real ones.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import psr, psr_sr
from experiments.claims.trial import Comparison, Measures, Trial, main
from fer_jax.config.fields import Config
from fer_jax.data.corrupt.degradation import degraded
from fer_jax.data.sources.source import load
from fer_jax.evaluation.evaluate import score
from fer_jax.evaluation.metrics import log_softmax
from fer_jax.inference.trained import Trained
from fer_jax.report.style import BLUE, INK, ORANGE, SOFT, new_figure, paler, quiet

STEPS = 300
TEST_FACES = 500
SIZES = (16, 24, 32, 48)  # pixels, of 64
INPUT = 40  # pixels; 43 of the stored ones


def arm(seed: int, multiples: tuple[int, ...], upsampler: str = "edsr", prior: str = "ferplus") -> Config:
    """The synthetic recipe for an eighth of VGG-16's width, without STN and dropout, which need more steps."""
    config = psr.get_config("synthetic")
    config.experiment = "claims/psr"
    config.seed = seed
    config.data.image_size = INPUT
    config.data.smoothing_prior = prior
    config.model.multiples = multiples
    config.model.upsampler = upsampler
    config.model.stn = False
    config.model.dropout = 0.0
    config.model.width = 8
    config.model.sr_blocks = 2
    config.model.sr_width = 8
    config.optimizer.groups = ()
    if upsampler == "edsr" and len(multiples) > 1:  # it is pre-trained, so it learns as slowly as the paper's
        config.optimizer.groups = ((psr.SLOW, {"lr_multiplier": 0.01}),)
    config.optimizer.learning_rate = 5e-3
    config.train.batch_size = 32
    config.train.max_steps = STEPS
    config.train.eval_every_epochs = 1000.0
    config.selection.rule = "last"
    return config


def super_resolution() -> Config:
    """The pre-training of EDSR on the training faces."""
    config = psr_sr.get_config("synthetic")
    config.experiment = "claims/psr"
    config.data.image_size = INPUT
    config.model.blocks = 2
    config.model.width = 8
    config.train.max_steps = 3 * STEPS
    config.train.eval_every_epochs = 1000.0
    config.selection.rule = "last"
    config.schedule.boundaries_epochs = (0.6 * 3 * STEPS * config.train.batch_size / 5400,)
    return config


def measure(arm_name: str, model: Trained) -> Measures:
    """Accuracy at every size, what a size costs, the divergence from the votes at full size, and a branch's worth."""
    whole = load(model.config.data, "test", training=False).select(np.arange(TEST_FACES))
    label = whole.arrays["label"]
    outputs = model.outputs(whole, ["branch_logits"])
    full = score(outputs, whole, bootstrap=0)
    found = {"accuracy at full size": full["accuracy"], "KL to votes": full["kl_to_votes"]}
    worth = [worths(outputs["branch_logits"], label)]
    for size in SIZES:
        small = degraded(whole, f"low_resolution:{size}")
        outputs = model.outputs(small, ["branch_logits"])
        found[f"accuracy at {size} px"] = score(outputs, small, bootstrap=0)["accuracy"]
        found[f"lost at {size} px"] = full["accuracy"] - found[f"accuracy at {size} px"]
        worth.append(worths(outputs["branch_logits"], label))
    if arm_name == PSR:
        more = np.mean(worth[1:], axis=0) - worth[0]
        found |= {branch(number): float(more[number - 1]) for number in SMALLER}
    return found


def worths(branch_logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Returns the accuracy that is lost without each branch, [m], of the logits [N, C, m]; of a single one nothing."""
    count = branch_logits.shape[-1]
    if count == 1:
        return np.zeros(1)
    p = np.exp(log_softmax(branch_logits.swapaxes(1, 2)))  # [N, m, C]
    right = lambda kept: (p[:, kept].mean(axis=1).argmax(axis=-1) == label).mean()  # noqa: E731
    everyone = list(range(count))
    return np.array([right(everyone) - right([b for b in everyone if b != gone]) for gone in everyone])


def branch(number: int) -> str:
    """Returns the measure of what a branch is worth."""
    return f"branch {number}, small above full"


def draw(record: Mapping[str, Any]) -> Figure:
    """Left accuracy over the size of the faces, by arm; right the divergence from the votes, seed by seed."""
    figure = new_figure(940, 420)
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.4))
    places = [*(f"{size} px" for size in SIZES), "full size"]
    for (name, values), color in zip(record["arms"].items(), (BLUE, ORANGE, SOFT), strict=False):
        accuracy = 100 * np.array([values[f"accuracy at {place}"] for place in places])  # [sizes, seeds]
        left.plot(accuracy, color=paler(color, 0.65), linewidth=0.8, zorder=1)
        left.plot(accuracy.mean(axis=1), "o-", color=color, linewidth=2, markersize=5, zorder=2, label=name)
    left.set_xticks(range(len(places)), places)
    quiet(left, "test faces reduced to, and enlarged again")
    left.set_title("Accuracy, %: mean in bold, a thin line for each seed", loc="left", fontsize=9, color=INK)
    left.legend(loc="lower right", frameon=False, fontsize=8.4, labelcolor=INK)

    votes = [record["arms"][name]["KL to votes"] for name in ("label smoothing", "single scale")]
    right.plot(np.array(votes), color=paler(SOFT, 0.4), linewidth=0.8, zorder=1)
    for x, (values, color) in enumerate(zip(votes, (ORANGE, BLUE), strict=True)):
        right.plot([x] * len(values), values, "o", color=color, markersize=5, zorder=2)
    right.set_xlim(-0.4, 1.4)
    quiet(right, "")
    right.set_xticks((0, 1), ("label\nsmoothing", "PDLS"))
    right.set_title("KL to the votes, nats", loc="left", fontsize=9, color=INK)
    return figure


PSR, PYRAMID = "PSR", (1, 2, 1)
SMALLER = (1, 2)  # the branches that see the reduced image
PERCENT = {"scale": 100, "unit": " %"}

TRIAL = Trial(
    name="psr",
    claim="PSR: a pyramid with super-resolution loses less on small faces; PDLS comes nearer to the annotators' votes.",
    arms={
        PSR: functools.partial(arm, multiples=PYRAMID),
        "bicubic pyramid": functools.partial(arm, multiples=PYRAMID, upsampler="bicubic"),
        "single scale": functools.partial(arm, multiples=(1,)),
        "label smoothing": functools.partial(arm, multiples=(1,), prior="uniform"),
    },
    start=super_resolution,
    starting=(PSR,),
    measure=measure,
    draw=draw,
    comparisons=(
        Comparison("accuracy at full size", "PSR", "single scale", **PERCENT),
        *(Comparison(f"accuracy at {size} px", "PSR", "single scale", **PERCENT) for size in SIZES),
        *(Comparison(f"lost at {size} px", "PSR", "single scale", "lower", **PERCENT) for size in SIZES),
        Comparison("accuracy at full size", "PSR", "bicubic pyramid", **PERCENT),
        *(Comparison(f"accuracy at {size} px", "PSR", "bicubic pyramid", **PERCENT) for size in SIZES),
        *(Comparison(branch(number), PSR, 0.0, scale=100, unit=" points") for number in SMALLER),
        Comparison("KL to votes", "single scale", "label smoothing", "lower", unit=" nats"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(TRIAL))
