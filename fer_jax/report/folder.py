"""The folder of a report: stores charts and images of the data set, and returns the <img> that shows each."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from etils import epath
from matplotlib.figure import Figure
from PIL import Image

from fer_jax.report.markup import Html, element
from fer_jax.report.style import to_png

IMAGE_SIDE = 336  # device pixels: about twice the width of a tile in CSS pixels
STRETCH = 1.25  # a chart may be shown this much larger than it was laid out


@dataclass(frozen=True)
class ReportFolder:
    """Where a report and its pictures are written."""

    folder: epath.Path

    def chart(self, name: str, figure: Figure, alt: str) -> Html:
        """Stores a chart; the <img> reserves its place before it has loaded."""
        width, height = (round(100 * inches) for inches in figure.get_size_inches())
        (self.folder / f"chart_{name}.png").write_bytes(to_png(figure))
        style = f"max-width:{STRETCH * width:.0f}px"
        return element("img", src=f"chart_{name}.png", alt=alt, width=width, height=height, style=style)

    def image(self, name: str, image: np.ndarray, alt: str) -> Html:
        """Stores an image of the data set, uint8 [H, W, 1 or 3]."""
        (self.folder / f"image_{name}.png").write_bytes(image_png(image))
        return element("img", src=f"image_{name}.png", alt=alt, loading="lazy")

    def clear(self) -> None:
        """Removes the pictures of an earlier report, which may have had more of them."""
        for path in self.folder.iterdir():
            if path.name.startswith(("chart_", "image_")) and path.suffix == ".png":
                path.unlink()


def image_png(image: np.ndarray) -> bytes:
    """Encodes uint8 [H, W, 1 or 3]; small images grow by a whole factor, very large ones shrink."""
    factor = -(-IMAGE_SIDE // max(image.shape[:2]))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((2 * IMAGE_SIDE, 2 * IMAGE_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
