"""ACNN (Li et al., IEEE T-IP 2019): gates on 24 patches and on the whole face, for robustness to occlusion.

    python run.py --config=experiments/acnn.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/acnn.py:rafdb          # the paper's data and recipe

The paper's four networks: gACNN (the default), pACNN (--config.model.global_unit=False), and both without gates
(--config.model.gates=False). Training sees every image twice, clean and behind an object, and the test split is scored
both ways, on objects of kinds that training never saw.

The authors round the points to whole pixels of a 224-pixel image, do not move them when gACNN crops, and compute batch
statistics over 16 (pACNN) or 12 images, accumulating gradients over about 128. Here points keep their fractions and
move with the crop, and a batch has 128 images; --config.train.accumulate=8 computes batch statistics over 16.

To test a trained model on other data sets (of each clip it sees three faces; the paper also takes the first faces as
neutral examples):

    python run.py --mode=evaluate --model=runs/acnn/affectnet --dataset=fed_ro      # real occlusions
    python run.py --mode=evaluate --model=runs/acnn/affectnet --dataset=sfew --split=validation
    python run.py --mode=evaluate --model=runs/acnn/affectnet --dataset=ckplus --split=train    # also mmi, oulu_casia
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    config = variant_config("acnn", "acnn", variant, VARIANTS)
    config.data.points = "face24"
    config.data.occluded_copies = True
    config.evaluation.occluded = True
    return config


def synthetic(config):
    """Synthetic faces at 48 pixels: F is 12x12 and a patch 3x3, about the share of the face that 6x6 is of 28x28."""
    presets.synthetic(config)
    _small(config)
    config.train.epochs = 7.0  # of twice as many images: the baseline's 14


def smoke(config):
    presets.smoke(config)
    _small(config)
    config.model.width = 4


def rafdb(config):
    """RAF-DB's aligned faces of 100 pixels with the paper's recipe.

    The paper starts from ImageNet's VGG-16: --config.init_from=vgg16-397923af.pth (docs/weights.md). The crop is
    gACNN's, 224 of 232 pixels; pACNN has none (--config.augmentation.train="()").
    """
    config.data.dataset = "rafdb/basic"
    config.data.image_size = 224
    config.augmentation.train = ("crop:97",)  # 97 of 100 pixels as 224 of 232
    config.train.batch_size = 128
    config.train.epochs = 50.0
    _paper(config)


def affectnet(config):
    """AffectNet, seven classes, with the paper's recipe."""
    rafdb(config)
    config.data.dataset = "affectnet/classes7"
    config.data.test_split = "validation"
    config.augmentation.train = ("crop:217",)  # 217 of 224 pixels as 224 of 232
    config.train.epochs = 10.0


def fer2013(config):
    """FER-2013 at 112 pixels, from scratch: for an accelerator. F is 28x28, as the paper's, after conv3_3."""
    presets.fer2013(config)
    _from_scratch(config)


def fer2013_short(config):
    presets.fer2013_short(config)
    _short(config)


def ferplus(config):
    presets.ferplus(config)
    _from_scratch(config)


def ferplus_short(config):
    presets.ferplus_short(config)
    _short(config)


def _paper(config):
    """SGD with weight decay, none on biases but twice the rate, and a learning rate that falls to 0 linearly.

    As in the authors' prototxt, scales (after the input's normalization and in the gates) and the bias that goes with
    the input's are like kernels.
    """
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decoupled = False
    config.optimizer.groups = (
        ("input_bn/bias$", {}),
        ("bias$", {"lr_multiplier": 2.0, "weight_decay": 0.0}),
    )
    config.schedule.name = "linear"


def _small(config):
    """What a CPU trains in minutes."""
    config.data.image_size = 48
    config.model.width = 8
    config.model.cut = "conv3_1"
    config.model.patch = 3
    config.model.patch_features = 16
    config.model.global_features = 64
    config.model.gate_channels = 16
    config.model.gate_hidden = 16
    config.model.hidden = 128


def _short(config):
    del config.model.stem  # a ResNet's
    _small(config)
    config.train.epochs = 3.0  # of twice as many images, each of which costs 24 patches


def _from_scratch(config):
    del config.model.stem  # a ResNet's
    config.data.image_size = 112
    config.model.width = 64
    config.model.cut = "conv3_3"
    config.model.affine = True


VARIANTS = {
    "synthetic": synthetic,
    "smoke": smoke,
    "rafdb": rafdb,
    "affectnet": affectnet,
    "fer2013": fer2013,
    "fer2013_short": fer2013_short,
    "ferplus": ferplus,
    "ferplus_short": ferplus_short,
}
