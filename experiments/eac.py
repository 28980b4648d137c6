"""EAC (Zhang et al., ECCV 2022) over the baseline: the mirror image has to be looked at in the same places.

python run.py --config=experiments/eac.py                    # synthetic faces, minutes on two CPU cores
python run.py --config=experiments/eac.py:rafdb_noise --config.init_from=WEIGHTS

    --config.strategy.eac.weight=0                  without consistency: the baseline with erasing
    --config.strategy.eac.balanced=True             both views are classified, the ablation of the paper
    --config.strategy.eac.pair_mode=independent     another box in the mirrored view, the authors' form for noisy labels

The batch of 32 matters: with others the authors' users got 83 % on RAF-DB in place of some 90 %.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("eac", "baseline", variant, VARIANTS)


def synthetic(config):
    """Synthetic faces by the common recipe, erased: about six minutes on two CPU cores. The map has 2x2 places."""
    presets.synthetic(config)
    _pair(config)


def synthetic_noise(config):
    """The same with 30 % wrong labels, which the mirrored view is to keep from being learned by heart."""
    synthetic(config)
    _wrong_labels(config)


def smoke(config):
    """Seconds: a few steps of a narrow network."""
    presets.smoke(config)
    _pair(config)


def fer2013(config):
    """FER-2013 by the common recipe, whose flip stays; the small stem gives a map of 6x6 places."""
    presets.fer2013(config)
    config.objective = "eac"


def fer2013_short(config):
    """FER-2013 by the common recipe for two CPU cores, erased: about 20 minutes. The map has 2x2 places."""
    presets.fer2013_short(config)
    _pair(config)


def ferplus(config):
    """FER+ by the common recipe. The paper leaves contempt out and has seven classes."""
    presets.ferplus(config)
    config.objective = "eac"


def rafdb(config):
    """RAF-DB by ResNet-18, the paper's recipe: noise on half of the pictures, a box erased in half of them, no flip."""
    presets.rafdb_ambiguous(config)
    config.objective = "eac"
    config.augmentation.train = ("noise:5.48,p=0.5", "erase:0.5,area=0.02-0.25,aspect=0.3-3.3")


def rafdb_resnet50(config):
    """The same by the ResNet-50 of VGGFace2 (give its weights with config.init_from), half as fast a learner."""
    rafdb(config)
    config.model.depth = 50
    config.model.stem = "caffe"
    config.optimizer.learning_rate = 1e-4


def rafdb_noise(config):
    """RAF-DB with 30 % wrong labels; the authors' own lists: config.data.label_noise_file and label_noise=''."""
    rafdb(config)
    _wrong_labels(config)


def _pair(config):
    config.objective = "eac"
    config.augmentation.train = (*config.augmentation.train, "erase:0.5")


def _wrong_labels(config):
    config.data.label_noise = "symmetric"
    config.data.label_noise_rate = 0.3
    config.strategy.eac.pair_mode = "independent"


VARIANTS = {
    "synthetic": synthetic,
    "synthetic_noise": synthetic_noise,
    "smoke": smoke,
    "fer2013": fer2013,
    "fer2013_short": fer2013_short,
    "ferplus": ferplus,
    "rafdb": rafdb,
    "rafdb_resnet50": rafdb_resnet50,
    "rafdb_noise": rafdb_noise,
}
