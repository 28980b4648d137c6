"""What every test of a builder shares: no detector is fetched."""

import pytest

from fer_jax.faces.detection import Haar, YuNet
from tfds_builders import picture_builder


@pytest.fixture(autouse=True)
def use_detector(monkeypatch):
    """A function that puts a detector in the place of the best one; until then that is the cascades."""

    def use(detector):
        monkeypatch.setattr(picture_builder, "best_detector", lambda yunet: YuNet(yunet) if yunet else detector)

    use(Haar())
    return use
