"""Recipes by data set, shared by all methods, so that two experiments differ only in the method.

Each function assigns plain values to a config of any method.
"""


def synthetic_data(config):
    """Synthetic faces, seen at 48 pixels."""
    config.data.dataset = "synthetic_faces/basic"
    config.data.builder.train = 6000
    config.data.builder.test = 1500
    config.data.builder.seed = 0
    config.data.builder.affect = False  # with valence and arousal, which config.model.affect learns
    config.data.image_size = 48


def synthetic(config):
    """About three minutes on two CPU cores: synthetic faces by a ResNet-18 of half the width.

    At full width (model.width=64) an epoch takes 2.7 times as long, which buys less than the epochs do.
    """
    synthetic_data(config)
    config.augmentation.train = ("crop:59", "flip")  # 59 of 64 pixels
    config.model.width = 32
    config.train.batch_size = 64
    config.train.epochs = 14.0
    config.train.log_every_steps = 50
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-2
    config.schedule.name = "one_cycle"
    config.schedule.peak_fraction = 0.2


def smoke(config):
    """Seconds: a few steps of a narrow network on a few synthetic faces, to see that everything runs."""
    synthetic(config)
    config.data.builder.train = 280
    config.data.builder.test = 70
    config.data.holdout_fraction = 0.2
    config.model.width = 16
    config.train.batch_size = 32
    config.train.epochs = 2.0
    config.train.log_every_steps = 5


def compound(config):
    """The 22 categories of Du et al. on synthetic faces, mixtures of action units, by the recipe of `synthetic`."""
    synthetic(config)
    config.data.dataset = "synthetic_faces/compound"
    config.data.builder.train = 8800
    config.data.builder.test = 2200
    config.selection.metric = "mean_recall"


def compound_smoke(config):
    """Seconds, on a few faces of the 22 categories."""
    smoke(config)
    config.data.dataset = "synthetic_faces/compound"


def fer2013_data(config):
    """FER-2013's splits, without the pictures that do not belong in training, at the native 48 pixels."""
    config.data.dataset = "fer2013"
    config.data.validation_split = "public_test"
    config.data.test_split = "private_test"
    config.data.exclude = ("black", "leaked")
    config.data.image_size = 48


def fer2013(config):
    """FER-2013 at its native 48 pixels, from scratch: for an accelerator."""
    fer2013_data(config)
    config.data.label_smoothing = 0.1
    config.augmentation.train = ("shift:4", "rotate:10", "flip", "erase:0.5")
    config.model.stem = "small"
    config.train.batch_size = 128
    config.train.epochs = 80.0
    config.train.log_every_steps = 50
    config.train.ema_decay = 0.999
    sgd(config)
    config.schedule.warmup_epochs = 2.0
    config.evaluation.flip = True


def sgd(config):
    """SGD with Nesterov's momentum and a cosine schedule, which trains ResNets from scratch."""
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decoupled = False
    config.optimizer.clip_norm = 5.0
    config.schedule.name = "cosine"


def fer2013_short(config):
    """FER-2013 with a narrow network and few epochs: within 12 minutes on two CPU cores."""
    fer2013(config)
    config.data.label_smoothing = 0.0
    config.augmentation.train = ("shift:2", "flip")  # twelve epochs underfit: strong augmentation only slows them
    config.preprocessing.standardize = True
    config.model.stem = "imagenet"
    config.model.width = 32
    config.train.batch_size = 64
    config.train.epochs = 12.0
    config.train.ema_decay = 0.0
    config.train.log_every_steps = 100
    config.schedule.name = "one_cycle"
    config.schedule.warmup_epochs = 0.0


def ferplus(config):
    """FER+ (8 classes, majority of label.csv at test, 3,137 images), trained on the votes."""
    fer2013(config)
    ferplus_votes(config)


def ferplus_short(config):
    """FER+ within 12 minutes on two CPU cores."""
    fer2013_short(config)
    ferplus_votes(config)


def rafdb(config):
    """RAF-DB, basic expressions, at 224 pixels: the recipe that FDRL and its relatives share, for an accelerator.

    The papers start from a ResNet-18 that has learned to recognize faces: give it with config.init_from
    (docs/weights.md). Without it a network from scratch learns little in these 40 epochs.
    """
    config.data.dataset = "rafdb/basic"
    config.data.image_size = 224
    config.augmentation.train = ("crop:95", "flip")  # 95 of 100 pixels, as 224 of 236
    adam(config)


def adam(config):
    """40 epochs of Adam at 1e-4, divided by 10 four times: FDRL's optimizer. Weight decay is stated nowhere: 0."""
    config.train.batch_size = 64
    config.train.epochs = 40.0
    config.train.log_every_steps = 50
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.b1 = 0.5
    config.schedule.name = "step"
    config.schedule.boundaries_epochs = (10.0, 18.0, 25.0, 32.0)
    config.selection.metric = "accuracy"


def rafdb_compound(config):
    """RAF-DB's eleven compound expressions by the same recipe. The score of the papers is the mean of the recalls."""
    rafdb(config)
    config.data.dataset = "rafdb/compound"
    config.selection.metric = "mean_recall"


def rafce(config):
    """RAF-CE's fourteen compound expressions by the same recipe; selected on its validation split."""
    rafdb_compound(config)
    config.data.dataset = "rafce"
    config.data.validation_split = "validation"
    config.augmentation.train = ("crop:212", "flip")  # 212 of 224 pixels


def rafdb_ambiguous(config):
    """RAF-DB with the usual recipe for ambiguous labels: 60 epochs of Adam with L2, times 0.9 per epoch; a GPU.

    They start from a ResNet-18 trained on MS-Celeb-1M (config.init_from), which adds 15 points and more when labels
    are noisy, and report the best epoch on the test split for clean labels, the last epochs for noisy ones.
    """
    config.data.dataset = "rafdb/basic"
    config.data.image_size = 224
    imagenet_pixels(config)
    config.train.batch_size = 32
    config.train.epochs = 60.0
    config.train.log_every_steps = 50
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decoupled = False
    config.schedule.name = "exponential"
    config.schedule.factor = 0.9
    config.selection.metric = "accuracy"


def rafdb_flip_or_noise(config):
    """The same as SCN and RUL augment: half of the pictures are mirrored or noisy, then boxes are erased."""
    rafdb_ambiguous(config)
    config.augmentation.train = ("one_of:0.5(flip|noise:5.48)", "erase:0.5,aspect=0.3-3.3")
    config.train.batch_size = 64


def caer_s(config):
    """CAER-S, the faces in the public boxes, by the recipe of RAF-DB in ten epochs."""
    rafdb(config)
    config.data.dataset = "caer_s/boxes"
    config.augmentation.train = ("crop:212", "flip")  # 212 of 224 pixels
    config.train.epochs = 10.0
    config.schedule.boundaries_epochs = (3.0, 5.0, 7.0, 9.0)


def affectnet(config):
    """AffectNet, seven classes drawn equally often, by the recipe of CAER-S; the test split is the validation split."""
    caer_s(config)
    config.data.dataset = "affectnet/classes7"
    config.data.test_split = "validation"
    config.data.holdout_fraction = 0.02
    config.data.balanced_sampling = True


def expw(config):
    """ExpW, the faces in its boxes, by the recipe of CAER-S; the test split is ours, a tenth of the pictures."""
    caer_s(config)
    config.data.dataset = "expw/boxes"


def affwild2(config):
    """Aff-Wild2's expression task, each tenth frame, by the recipe of AffectNet; held-out videos select the model.

    The license of the data restricts sharing models trained on it.
    """
    affectnet(config)
    config.data.dataset = "affwild2"
    config.data.builder.every = 10
    config.data.image_size = 112
    config.data.holdout_fraction = 0.1
    config.augmentation.train = ("crop:106", "flip")  # 106 of 112 pixels
    config.selection.metric = "macro_f1"


def sfew(config):
    """SFEW 2.0 with the recipe of RAF-DB: 891 training pictures, so start from a network pre-trained on faces."""
    rafdb(config)
    config.data.dataset = "sfew"
    config.data.test_split = "validation"
    config.augmentation.train = ("shift:6", "flip")


def ckplus(config):
    """CK+ as images: the last three faces of each sequence, 981 of seven classes; all ten folds in turn.

    Papers differ: config.data.neutral_frames=1 adds the first face of each as an eighth class.
    """
    rafdb(config)
    config.data.dataset = "ckplus"
    config.data.last_frames = 3
    config.data.folds = "stored"
    config.fold = "all"
    config.augmentation.train = ("crop:212", "flip")  # 212 of 224 pixels


def mmi(config):
    """MMI as images: the three faces in the middle of each video, six classes; ten folds by subject, all in turn."""
    ckplus(config)
    config.data.dataset = "mmi"
    config.data.folds = "subject:10"


def oulu_casia(config):
    """Oulu-CASIA as images: the last three faces under strong visible light, 1,440 of six classes; folds as of MMI."""
    mmi(config)
    config.data.dataset = "oulu_casia"


def jaffe(config):
    """JAFFE, leaving out one person at a time: 213 pictures, so start from a network pre-trained on faces."""
    rafdb(config)
    config.data.dataset = "jaffe/faces"
    config.data.folds = "leave_one_subject_out"
    config.fold = "all"
    config.augmentation.train = ("flip",)
    config.selection.rule = "last"  # too few people to hold some of them out


def kdef(config):
    """KDEF's frontal faces, 980 of seventy people: ten folds by subject, all in turn."""
    rafdb(config)
    config.data.dataset = "kdef/faces"
    config.data.folds = "subject:10"
    config.fold = "all"
    config.augmentation.train = ("flip",)


def image_folder(config):
    """Your own faces, prepared as image_folder with splits train and test; another name by config.data.dataset.

    Pictures that are all training: config.data.folds=examples:5 and config.fold=all test each fifth in turn.
    """
    fer2013_short(config)
    config.data.dataset = "image_folder/default"
    config.data.validation_split = ""
    config.data.test_split = "test"
    config.data.exclude = ()


def imagenet_pixels(config):
    """Normalizes pixels as for networks trained on ImageNet."""
    config.preprocessing.mean = (0.485, 0.456, 0.406)
    config.preprocessing.std = (0.229, 0.224, 0.225)


def ferplus_votes(config):
    """The same pictures with FER+'s votes, each learned as the distribution that the votes give."""
    config.data.dataset = "ferplus"
    config.data.votes = "votes_label"
    config.data.target = "cross_entropy"
    config.data.label_smoothing = 0.0


NOISY = {  # what experiments on ambiguous and wrong labels are run on
    "synthetic": synthetic,
    "smoke": smoke,
    "fer2013": fer2013,
    "fer2013_short": fer2013_short,
    "ferplus": ferplus,
    "ferplus_short": ferplus_short,
    "rafdb": rafdb_flip_or_noise,
}

COMPOUND = {"compound": compound, "rafdb_compound": rafdb_compound, "rafce": rafce}  # of methods that take any classes

VARIANTS = {
    "synthetic": synthetic,
    "smoke": smoke,
    "fer2013": fer2013,
    "fer2013_short": fer2013_short,
    "ferplus": ferplus,
    "ferplus_short": ferplus_short,
    "rafdb": rafdb,
    "affectnet": affectnet,
    "caer_s": caer_s,
    "expw": expw,
    "affwild2": affwild2,
    "sfew": sfew,
    "ckplus": ckplus,
    "mmi": mmi,
    "oulu_casia": oulu_casia,
    "jaffe": jaffe,
    "kdef": kdef,
    "image_folder": image_folder,
}
