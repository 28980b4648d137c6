"""EAC (Zhang et al., ECCV 2022) on top of the baseline: consistent attention on an image and its mirror image.

python run.py --config=experiments/eac.py                    # synthetic faces, minutes on two CPU cores
python run.py --config=experiments/eac.py:rafdb_noise --config.init_from=WEIGHTS

    --config.strategy.eac.weight=0                  no consistency loss: the baseline with erasing
    --config.strategy.eac.balanced=True             classify both views, an ablation of the paper
    --config.strategy.eac.pair_mode=independent     erase another box in the mirrored view, as the authors do for noise

The batch size of 32 matters: with other sizes, users of the authors' code report 83 % on RAF-DB instead of about 90 %.
FER+ has eight classes here; the paper leaves contempt out (config.data.drop_classes). The attention maps are 6x6 in
`fer2013` and `ferplus`, and 2x2 in `synthetic` and the short variants.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    config = variant_config("eac", "baseline", variant, VARIANTS)
    config.objective = "eac"
    if not any(operation.startswith("erase") for operation in config.augmentation.train):
        config.augmentation.train = (*config.augmentation.train, "erase:0.5")
    return config


def synthetic_noise(config):
    """Synthetic faces with 30 % wrong labels, which the consistency is to keep from being memorized."""
    presets.synthetic(config)
    _wrong_labels(config)


def rafdb(config):
    """RAF-DB by ResNet-18, the paper's recipe: noise on half of the pictures, a box erased in half of them, no flip."""
    presets.rafdb_ambiguous(config)
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


def _wrong_labels(config):
    config.data.label_noise = "symmetric"
    config.data.label_noise_rate = 0.3
    config.strategy.eac.pair_mode = "independent"


VARIANTS = presets.NOISY | {
    "synthetic_noise": synthetic_noise,
    "rafdb": rafdb,
    "rafdb_resnet50": rafdb_resnet50,
    "rafdb_noise": rafdb_noise,
}
