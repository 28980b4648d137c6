"""PSR (Vo, Lee, Yang and Kim, IEEE Access 2020): a pyramid of image sizes with super-resolution, VGG-16-BN and PDLS.

    python run.py --config=experiments/psr.py                # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/psr_sr.py             # as in the paper: first train super-resolution,
    python run.py --config=experiments/psr.py:synthetic_after_sr    # then expressions, on the same faces

On real faces VGG-16-BN starts from ImageNet and EDSR from DIV2K, with --config.init_from and the files of
docs/weights.md; by default EDSR comes from experiments/psr_sr.py on the same data set. Ablations:

    --config.model.upsampler=bicubic          the pyramid without super-resolution (and --config.init_from=)
    --config.model.multiples="(1,)"           one size: VGG-16-BN with the same head (likewise)
    --config.model.stn=False                  without the spatial transformer (and --config.optimizer.groups="()")
    --config.data.smoothing_prior=uniform     ordinary label smoothing

The recipe is that of the authors' release, with fastai's augmentation. It differs in the metric that selects the model:
the negative log-likelihood of the fused prediction on the labels; the authors use their training loss, by branch.
FER+'s faces have 48 pixels: enlarged to 96, halved and super-resolved, they contain no new information, so that a gain
there comes from the pyramid of sizes rather than from super-resolution.
"""

from experiments import presets
from fer_jax.config.fields import variant_config

SLOW, SHARED = "^(stn|sr_)", "^(high|head)"  # the groups of learning rates; the low parts are the rest


def get_config(variant="synthetic"):
    return variant_config("psr", "psr", variant, VARIANTS)


def synthetic(config):
    """Synthetic faces at 48 pixels by narrow networks, PDLS: under six minutes on two CPU cores.

    EDSR starts untrained here and learns from the classification alone; `synthetic_after_sr` is the paper's way.
    """
    presets.synthetic(config)
    _narrow(config)
    _pdls(config)
    config.train.batch_size = 32
    config.train.epochs = 5.0
    config.optimizer.learning_rate = 5e-3
    config.optimizer.groups = (("^stn", {"lr_multiplier": 0.01}),)


def synthetic_after_sr(config):
    """The same with the super-resolution of experiments/psr_sr.py, which then learns as slowly as in the paper."""
    synthetic(config)
    config.init_from = "runs/psr_sr/synthetic"
    config.optimizer.groups = ((SLOW, {"lr_multiplier": 0.01}),)


def smoke(config):
    """Seconds: a few steps of a very narrow network."""
    presets.smoke(config)
    _pdls(config)
    config.model.width = 4
    config.model.sr_blocks = 1
    config.model.sr_width = 4
    config.model.hidden = 16
    config.model.last = "pool4"


def ferplus(config):
    """FER+ at 96 pixels, on the votes of each image: 30 epochs of Adam and 30 of SGD, for an accelerator."""
    presets.fer2013_data(config)
    presets.ferplus_votes(config)
    config.data.target = "votes"  # as they are, where FER+'s own rule leaves out single ones
    config.data.image_size = 96
    _recipe(config, rotation=30.0, zoom=1.2)
    config.train.batch_size = 64
    config.train.epochs = 60.0
    config.train.phases = ((0.5, {}), (0.5, {"optimizer.name": "sgd"}))
    config.optimizer.groups = ((SLOW, {"lr_multiplier": 0.01}), (SHARED, {"lr_multiplier": 0.5}))


def ferplus_short(config):
    """FER+ at its 48 pixels by the narrow network: within 12 minutes on two CPU cores."""
    presets.fer2013_data(config)
    presets.ferplus_votes(config)
    _short(config)


def fer2013_short(config):
    """The same pictures with FER-2013's labels, PDLS."""
    presets.fer2013_data(config)
    _pdls(config)
    _short(config)


def rafdb(config):
    """RAF-DB's aligned faces at their 100 pixels, PDLS with eps 0.2: 30 epochs of Adam and 20 of SGD.

    The paper rotates the held-out fifth of the training split; the test split is always the official one. Its VGG has
    learned FER+ before: `rafdb_after_ferplus`.
    """
    config.data.dataset = "rafdb/basic"
    config.data.holdout_fraction = 0.2
    config.data.image_size = 100
    _recipe(config, rotation=15.0, zoom=1.1)
    _pdls(config)
    config.train.batch_size = 32
    config.train.epochs = 50.0
    config.train.phases = ((0.6, {}), (0.4, {"optimizer.name": "sgd"}))
    # The shared part has the middle place in the authors' list, and so the largest rate.
    config.optimizer.groups = ((SLOW, {"lr_multiplier": 0.01}), (SHARED, {"lr_multiplier": 5.0}))


def rafdb_after_ferplus(config):
    """The same from the network of `ferplus`; the authors start from a VGG-16-BN trained on FER+, of one size.

    The last layer starts afresh, where the authors keep its rows for the seven classes.
    """
    rafdb(config)
    config.init_from = "runs/psr/ferplus"
    config.init_ignore = ("^stn/",)  # which fits 96 pixels only


def affectnet(config):
    """AffectNet at 200 pixels, classes drawn equally often. Not published in this form: RAF-DB's rates, halved."""
    rafdb(config)
    config.data.dataset = "affectnet/classes8"
    config.data.test_split = "validation"
    config.data.holdout_fraction = 0.028  # some 8,000, in the classes' proportions; the authors hold out 1,000 of each
    config.data.image_size = 200
    config.data.balanced_sampling = True
    config.train.batch_size = 64
    config.train.epochs = 25.0
    config.optimizer.learning_rate = 5e-4


def _short(config):
    _narrow(config)
    config.augmentation.train = ("shift:2", "flip")
    config.preprocessing.standardize = True
    config.train.batch_size = 32
    config.train.epochs = 2.0
    config.train.log_every_steps = 100
    config.optimizer.learning_rate = 5e-3
    config.optimizer.groups = (("^stn", {"lr_multiplier": 0.01}),)
    config.optimizer.weight_decay = 1e-2
    config.schedule.name = "one_cycle"
    config.schedule.peak_fraction = 0.2
    config.evaluation.flip = True


def _recipe(config, rotation, zoom):
    presets.imagenet_pixels(config)  # VGG-16-BN's; experiments/psr_sr.py restores the same
    config.augmentation.train = (
        f"magnify:1-{zoom},p=0.75",
        f"rotate:{rotation},p=0.75",
        "flip",
        "warp:0.2,p=0.75",
        "logit_brightness:0.2,p=0.75",
        "logit_contrast:0.2,p=0.75",
    )
    config.augmentation.pad = "reflect"
    config.init_from = f"runs/psr_sr/{config.variant}"
    config.train.log_every_steps = 100
    config.train.phase_restores_best = True
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 1e-2
    config.schedule.name = "one_cycle"
    config.schedule.peak_fraction = 0.3
    config.schedule.momentum = (0.95, 0.85)
    config.schedule.final_div_factor = 1e4
    config.selection.metric = "nll"
    config.evaluation.views = "corners"


def _pdls(config):
    config.data.label_smoothing = 0.2
    config.data.smoothing_prior = "ferplus"


def _narrow(config):
    """Of 48 pixels there is as much left after pool4 as there is of the paper's 96 after pool5."""
    config.model.last = "pool4"
    config.model.width = 12
    config.model.sr_blocks = 2
    config.model.sr_width = 8
    config.model.hidden = 128
    config.model.dropout = 0.1  # in a few epochs the head's half would only slow it


VARIANTS = {
    "synthetic": synthetic,
    "synthetic_after_sr": synthetic_after_sr,
    "smoke": smoke,
    "ferplus": ferplus,
    "ferplus_short": ferplus_short,
    "fer2013_short": fer2013_short,
    "rafdb": rafdb,
    "rafdb_after_ferplus": rafdb_after_ferplus,
    "affectnet": affectnet,
}
