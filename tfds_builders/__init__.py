"""One TensorFlow Datasets builder per data set of the field."""
