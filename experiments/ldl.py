"""Label distribution learning (Geng, IEEE TKDE 2016) with a deep network: KL divergence from the annotators' votes.

    python run.py --config=experiments/ldl.py                   # synthetic faces with ten annotators
    python run.py --config=experiments/ldl.py:ferplus           # FER+
    python run.py --config=experiments/ldl.py:ferplus_short     # FER+ in minutes on two CPU cores
    python -m experiments.claims.ldl --model=runs/ldl/synthetic --out results/ldl_synthetic.json

The paper's data sets, JAFFE and BU-3DFE with scores for six emotions, are distributed only as features; here FER+'s ten
votes take their place. On FER+ the usual scores are against the majority vote (`num_examples` is the number of
pictures), and the six measures of the paper against the votes. The last command scores the paper's own algorithms,
maximum entropy, AA-kNN and AA-BP, on the features of a trained network.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("ldl", "baseline", variant, VARIANTS)


def synthetic(config):
    presets.synthetic(config)
    config.objective = "ldl"


def smoke(config):
    presets.smoke(config)
    config.objective = "ldl"


def ferplus(config):
    presets.ferplus(config)
    votes(config)


def ferplus_short(config):
    presets.ferplus_short(config)
    votes(config)


def votes(config):
    """All votes for emotions, none of them dropped as an outlier."""
    config.objective = "ldl"
    config.data.target = "votes"


VARIANTS = {"synthetic": synthetic, "smoke": smoke, "ferplus": ferplus, "ferplus_short": ferplus_short}
