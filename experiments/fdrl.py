"""FDRL (Ruan et al., CVPR 2021): feature decomposition and reconstruction on a ResNet-18.

    python run.py --config=experiments/fdrl.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/fdrl.py:fer2013        # real faces

The recipe is the baseline's (experiments/presets.py), so that the two compare. Those of RAF-DB, CK+, MMI, Oulu-CASIA
and SFEW are the paper's own, as far as it is known: Adam at 1e-4 (so does :fer2013_adam on FER-2013). The paper starts
from a ResNet-18 trained on MS-Celeb-1M: --config.init_from=FILE (docs/weights.md), and with it the pixels of that file,
--config.preprocessing.mean and .std; what the paper normalized by is not known. Which classes of CK+ it took is not
known either: here the seven with contempt.

A trained model is tested on other data sets as it is; of clips it sees three faces:

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
