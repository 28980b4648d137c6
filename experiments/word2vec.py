"""Word2Vec FER: faces mapped to the vectors of emotion words; the nearest word is the answer.

    python run.py --config=experiments/word2vec.py            # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/word2vec.py:fer2013    # real faces
    ... --config.model.vectors=GoogleNews-vectors-negative300.bin   # the words of word2vec itself

The recipe is the baseline's (experiments/presets.py), so that the two compare. The loss is A0, the cosine loss as
published. At a perfect fit it leaves a margin of no more than 1 - cosine between similar words, and decides with a bias
towards words that resemble many others (docs/word2vec.md); and nothing in it fits the temperature, without which its
probabilities mean little. A3 adds a cross-entropy over the cosines at a learned temperature:

    --config.loss.options.kind=hybrid --config.model.learn_scale=True
"""

from experiments.presets import VARIANTS
from fer_jax.config.fields import variant_config


def get_config(variant="synthetic"):
    return variant_config("word2vec", "word2vec", variant, VARIANTS)
