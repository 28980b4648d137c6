"""The model of an experiment's config, without its data."""

from fer_jax import methods


def build_model(config, classes):
    """Returns the linen module for the classes of a data set."""
    method = methods.of(config)
    fields = config.model.to_dict() | dict(method.model_fields(config, classes).fields)
    return method.build(len(classes), fields, "float32")
