"""Forward correction by FER-2013's transition matrix (Patrini et al., CVPR 2017), on FER-2013's own labels.

    python run.py --config=experiments/correction.py                 # synthetic faces, 30 % wrong labels, T estimated
    python run.py --config=experiments/correction.py:fer2013         # FER-2013's labels of FER+'s pictures, T known
    python run.py --config=experiments/correction.py:fer2013_short   # the same in minutes on two CPU cores

The paper's recipe is for CIFAR. Here the common recipe is used, so that cross-entropy differs only in the loss. To
train with cross-entropy: --config.objective='' and, where the variant changes them, the defaults
--config.strategy.correction.matrix=fer2013 --config.strategy.correction.start=5. For label smoothing add
--config.data.label_smoothing=0.1. Selecting the model would use true labels, so the last step is kept. Other matrices:
--config.strategy.correction.matrix=FILE, estimated, learned.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("correction", "baseline", variant, VARIANTS)


def corrected(config):
    config.objective = "correction"
    config.data.label_smoothing = 0.0
    config.selection.rule = "last"


def synthetic(config):
    """Synthetic faces of which 30 % have a wrong label, as FER+'s annotators confuse them."""
    presets.synthetic(config)
    corrected(config)
    config.data.label_noise, config.data.label_noise_rate = "asymmetric", 0.3
    config.strategy.correction.matrix = "estimated"
    config.strategy.correction.start = 4.0


def smoke(config):
    presets.smoke(config)
    corrected(config)
    config.data.label_noise, config.data.label_noise_rate = "asymmetric", 0.3
    config.strategy.correction.matrix = "estimated"
    config.strategy.correction.start = 1.0


def fer2013(config):
    presets.ferplus(config)
    real_noise(config)


def fer2013_short(config):
    presets.ferplus_short(config)
    real_noise(config)


def real_noise(config):
    """FER-2013's labels train, the majority of FER+'s votes is the truth; seven classes."""
    corrected(config)
    config.data.target = "majority"
    config.data.drop_classes = ("contempt",)
    config.data.label_noise = "fer2013"


VARIANTS = {"synthetic": synthetic, "smoke": smoke, "fer2013": fer2013, "fer2013_short": fer2013_short}
