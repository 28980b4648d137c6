"""Word2Vec FER: faces mapped to the vectors of emotion words, the nearest word is the answer.

    python run.py --config=experiments/word2vec.py            # synthetic faces, minutes on two CPU cores
    python run.py --config=experiments/word2vec.py:fer2013    # real faces
    ... --config.model.vectors=GoogleNews-vectors-negative300.bin   # the words of word2vec itself

The recipe is the baseline's (experiments/presets.py), so that the two compare.
"""

from experiments import presets


def get_config(variant="synthetic"):
    config = presets.faces("word2vec", variant, method="word2vec")
    config.loss.options.kind = "hybrid"
    config.model.learn_scale = True
    return config
