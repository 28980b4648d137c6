"""Time to a given accuracy on FER-2013, from scratch: selected on public_test, private_test read once.

    python run.py --config=experiments/fer2013_fast.py --config.seeds=5        # one data-center GPU: aims at 73 %
    python run.py --config=experiments/fer2013_fast.py:cpu --config.seeds=5    # two CPU cores, ten minutes a seed

To measure the effect of each piece on two cores:
`python -m benchmarks.time_to_accuracy --out results/fer2013_fast_pieces.json`. The GPU variant is four times as wide,
trains longer and uses the baseline's augmentation; it has not been measured on a GPU yet.
"""

from experiments import presets
from fer_jax.config.fields import variant_config


def get_config(variant="gpu"):
    return variant_config("fer2013_fast", "compact", variant, VARIANTS)


def cpu(config):
    """Two CPU cores, ten minutes of training."""
    presets.fer2013_data(config)
    config.data.label_smoothing = 0.1
    config.data.resolutions = ((0.5, 32),)
    config.augmentation.train = ("shift:4", "flip:alternate")
    config.preprocessing.standardize = True
    config.model.widths = (48, 96, 192)
    config.train.batch_size = 128
    config.train.epochs = 20.0
    config.train.eval_every_epochs = 5.0
    config.train.ema_decay = 0.98
    _muon(config)
    config.evaluation.views = "corners"  # each image magnified at four corners, mirrored or not, and as it is


def gpu(config):
    """One accelerator; aims at a minute."""
    cpu(config)
    config.model.stem_width = 64
    config.model.widths = (192, 384, 768)
    config.model.convolutions = 3
    config.model.dropout = 0.2
    config.augmentation.train = ("shift:4", "rotate:10", "flip:alternate", "erase:0.5")
    config.data.resolutions = ((0.4, 32), (0.3, 40))
    config.train.batch_size = 512
    config.train.epochs = 45.0
    config.train.eval_every_epochs = 5.0
    config.train.ema_decay = 0.995


def smoke(config):
    """Seconds: a few steps on a few synthetic faces."""
    cpu(config)
    config.data = variant_config("", "compact", "smoke", presets.VARIANTS).data
    config.data.resolutions = ((0.5, 32),)
    config.model.widths = (16, 16, 32)
    config.train.batch_size = 32
    config.train.epochs = 2.0
    config.train.eval_every_epochs = 1.0
    config.train.log_every_steps = 5
    config.evaluation.views = ""


def _muon(config):
    """Muon with a triangular schedule."""
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 0.03
    config.optimizer.momentum = 0.95
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 0.01
    config.optimizer.b2 = 0.99
    config.schedule.name = "triangular"
    config.schedule.peak_fraction = 0.25
    config.schedule.div_factor = 10.0
    config.schedule.final_fraction = 0.02


VARIANTS = {"gpu": gpu, "cpu": cpu, "smoke": smoke}
