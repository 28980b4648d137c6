"""NLA (Lee et al., AAAI 2025) on top of the baseline: more weight for ambiguous examples, less for wrong and easy ones.

python run.py --config=experiments/nla.py                    # synthetic faces, minutes on two CPU cores
python run.py --config=experiments/nla.py:rafdb --config.init_from=WEIGHTS

    --config.strategy.nla.weighting=released        two Gaussians, as in the authors' code
    --config.strategy.nla.noise_aware=0             only the divergence
    --config.strategy.nla.consistency=0             only the weights

The authors select the best epoch on the test split, so their numbers are not quoted here.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    config = variant_config("nla", "baseline", variant, VARIANTS)
    config.objective = "nla"
    config.strategy.nla.epochs = config.train.epochs / 15  # the share of the run in which the authors' Gaussian moves
    return config


def rafdb(config):
    """RAF-DB by ResNet-18: the authors' recipe. Their means and deviations of the pixels are the data set's own."""
    presets.rafdb_ambiguous(config)
    config.preprocessing.mean = (0.577, 0.4494, 0.4001)
    config.preprocessing.std = (0.2628, 0.2395, 0.2383)
    config.augmentation.train = ("flip", "erase:0.5,area=0.02-0.3,aspect=0.3-3.3")
    config.optimizer.learning_rate = 1e-4


VARIANTS = presets.NOISY | {"rafdb": rafdb}
