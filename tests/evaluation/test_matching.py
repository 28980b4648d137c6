"""Classes of a data set that a model was not trained on."""

import dataclasses

import pytest

from fer_jax.data.sources.source import load
from fer_jax.errors import UserError
from fer_jax.evaluation import matching


def test_no_class_in_common_is_refused(tiny):
    source = dataclasses.replace(load(tiny().data, "test", training=False), classes=tuple("abcdefg"))
    with pytest.raises(UserError, match="none of which the model knows"):
        matching.match_classes(source, ("happiness", "fear"))
