"""How much of what action units tell of an expression a network sees in the face, where the units are known.

    python -m experiments.claims.compound --out results/compound.json        # about 16 minutes on two CPU cores
    python -m experiments.claims.compound --arms=compact --out results/compound_compact.json      # about 5

Trains networks on synthetic faces: a ResNet by the common recipe on the basic expressions and neutral, from whose
probabilities the 22 categories of Du et al. are read as well; on these 22 with a softmax; on these with six sigmoids
and the table of pairs; and the compact network, which learns fastest, with a softmax on twice as many faces. Beside
their mean class accuracy on the test split stands that of a linear classifier, maximum entropy, on the true action
units of the same training faces.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Int

from experiments import baseline, compound, fer2013_fast, presets
from experiments.claims.ldl import FLOOR, maximum_entropy
from fer_jax.config.fields import Config, variant_config
from fer_jax.data.sources.source import Source
from fer_jax.data.sources.source import load as load_split
from fer_jax.engine import compiler
from fer_jax.errors import UserError, nearest, print_any_text, writing
from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.inference.pairs import match_pairs, reads_pairs
from fer_jax.inference.trained import Trained, load
from fer_jax.runs.workdir import write_json
from fer_jax.training import loop


def fast(config: Config) -> None:
    """The recipe of fer2013_fast for synthetic faces: more of them than an epoch of the common recipe has."""
    fer2013_fast.cpu(config)
    config.data = variant_config("", "compact", "compound", presets.COMPOUND).data
    config.data.builder.train = 17600
    config.data.holdout_fraction = 0.05
    config.data.resolutions = ((0.4, 32),)
    config.augmentation.train = ("crop:59", "flip:alternate")
    config.train.epochs = 13.0
    config.train.eval_every_epochs = 3.0
    config.evaluation.views = ""
    config.evaluation.flip = True
    config.selection.metric = "mean_recall"


ARMS = {
    "basic": lambda: baseline.get_config("synthetic"),
    "softmax": lambda: baseline.get_config("compound"),
    "six_sigmoids": lambda: compound.get_config("compound"),
    "compact": lambda: variant_config("compound", "compact", "fast", {"fast": fast}),
}
PENALTY = 1e-4  # of the classifier on action units


def measure(arms: Mapping[str, Config], workdir: epath.Path) -> dict[str, Any]:
    """Trains what is not trained yet, and returns the scores by training set and by what they were read from."""
    found: dict[str, dict[str, Any]] = {}
    basic: Trained | None = None
    for name, config in arms.items():
        print(f"compound: {name}", flush=True)
        loop.train(config, workdir / name)
        model = load(str(workdir / name))
        train, test = (load_split(model.config.data, split, training=False) for split in ("train", "test"))
        faces = f"{train.name}, {len(train):,} faces"
        if faces not in found:
            found[faces] = {"chance": 1 / len(test.classes), "action_units": of_units(train, test)}
            if basic is not None and reads_pairs(test.classes, basic.classes):
                logits = match_pairs(test, basic, train).of_outputs(basic.outputs(test))["logits"]
                found[faces]["pairs_of_basic"] = scores(logits, test.arrays["label"], test.classes)
        found[faces][name] = scores(model.outputs(test)["logits"], test.arrays["label"], test.classes)
        basic = model if name == "basic" else basic
    return found


def of_units(train: Source, test: Source) -> dict[str, float]:
    """Returns the scores of a linear classifier on the true action units."""
    target = np.eye(len(train.classes))[train.arrays["label"]]
    units, seen = (source.arrays["action_units"].astype(np.float64) for source in (train, test))
    p = np.maximum(maximum_entropy(units, target, seen, PENALTY), FLOOR)
    return scores(np.log(p), test.arrays["label"], test.classes)


def scores(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"], classes: Sequence[str]) -> dict[str, float]:
    """Returns the mean class accuracy and, of compound classes, the share of examples with all parts right."""
    all_scores = classification_metrics(logits, labels, classes, bootstrap=0)
    parts = {"all_parts_right": all_scores["parts"]["all_right"]} if "parts" in all_scores else {}
    return {"mean_recall": all_scores["mean_recall"], **parts}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARMS), help="which of the networks (default %(default)s)")
    parser.add_argument("--workdir", type=os.path.expanduser, default="runs/claims/compound", help="folder of the runs")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument("--max_steps", type=int, default=0, help="stop each run here: to see that everything works")
    args = parser.parse_args(arguments)
    print_any_text()
    try:
        chosen = args.arms.split(",")
        if wrong := set(chosen) - set(ARMS):
            raise UserError(f"--arms: {nearest(min(wrong), ARMS)}")
        configs = {name: make() for name, make in ARMS.items() if name in chosen}
        for config in configs.values():
            config.evaluation.report = False
            config.train.max_steps = args.max_steps or config.train.max_steps
        compiler.use_compilation_cache()
        found, target = measure(configs, epath.Path(args.workdir)), epath.Path(args.out)
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, found)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (loop.Interrupted, KeyboardInterrupt):
        print("stopped; the same command resumes from there", file=sys.stderr)
        return 130
    print(json.dumps(found, indent=1))
    for faces, by_name in found.items():
        units = by_name["action_units"]["mean_recall"]
        for name, known in by_name.items():
            if name not in ("chance", "action_units"):
                share = known["mean_recall"] / units
                print(f"{faces}: {name} {known['mean_recall']:.1%}, {share:.0%} of the {units:.1%} of action units")
    return 0


if __name__ == "__main__":
    sys.exit(main())
