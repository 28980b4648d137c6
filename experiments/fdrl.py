"""FDRL (Ruan et al., CVPR 2021): feature decomposition and reconstruction on a ResNet-18.

    python run.py --config=experiments/fdrl.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/fdrl.py:fer2013        # real faces

The recipe is the baseline's (experiments/presets.py), so that the two can be compared. For RAF-DB, CK+, MMI, Oulu-CASIA
and SFEW it is the paper's recipe as far as published: Adam at 1e-4 (:fer2013_adam uses it on FER-2013). The paper
starts from a ResNet-18 trained on MS-Celeb-1M: give --config.init_from=FILE (docs/weights.md), and the normalization of
that file by --config.preprocessing.mean and .std. The paper states neither its normalization nor its classes of CK+;
here CK+ has seven, with contempt.

To test a trained model on other data sets (of each clip it sees three faces):

    python run.py --mode=evaluate --model=runs/fdrl/rafdb --dataset=fed_ro
    python run.py --mode=evaluate --model=runs/fdrl/rafdb --dataset=sfew --split=validation
    python run.py --mode=evaluate --model=runs/fdrl/rafdb --dataset=ckplus --split=train    # also mmi, oulu_casia
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("fdrl", "fdrl", variant, VARIANTS)


def fer2013_adam(config):
    """FER-2013 with the paper's optimizer in place of the common recipe's."""
    presets.fer2013_data(config)
    presets.adam(config)
    config.model.stem = "small"
    config.augmentation.train = ("shift:2", "flip")  # 2 of 48 pixels on each side, as a crop of 224 of 236


VARIANTS = presets.VARIANTS | {"fer2013_adam": fer2013_adam}
