"""Word2Vec FER: maps faces to the vectors of emotion words and predicts the nearest word.

    python run.py --config=experiments/word2vec.py            # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/word2vec.py:fer2013    # real faces
    ... --config.model.vectors=GoogleNews-vectors-negative300.bin   # the words of word2vec itself

The recipe is the baseline's (experiments/presets.py), so that the two can be compared. The loss is A0, the cosine loss
as published. Even at a perfect fit the margin between similar words is at most 1 - cosine, and predictions are biased
towards words that resemble many others (docs/word2vec.md). The loss also does not fit the temperature, so its
probabilities mean little. A3 adds a cross-entropy over the cosines at a learned temperature:

    --config.loss.options.kind=hybrid --config.model.learn_scale=True
"""

from experiments.presets import VARIANTS
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("word2vec", "word2vec", variant, VARIANTS)
