"""Charts and images of the data set as <img> elements with their bytes inside: a page of them is one file."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fer_jax.report.markup import Html, element
from fer_jax.report.style import to_png

LARGEST_SIDE = 336  # device pixels: about twice the width of a tile in CSS pixels
STRETCH = 1.25  # a chart may be shown this much larger than it was laid out


def chart(figure: Figure, alt: str) -> Html:
    """A chart; the <img> reserves its place."""
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    style = f"max-width:{STRETCH * width:.0f}px"
    source = _source(to_png(figure))
    return element("img", src=source, alt=alt, width=width, height=height, style=style, class_="chart")


def picture(image: np.ndarray, alt: str, largest: int = LARGEST_SIDE) -> Html:
    """An image of the data set, uint8 [H, W, 1 or 3]; one with a side of more than `largest` pixels is reduced."""
    shown = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    shown.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return element("img", src=_source(buffer.getvalue()), alt=alt, class_="pixels")


def _source(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
