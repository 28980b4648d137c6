"""How the charts of a report look: colors, frames, legends, and how a figure becomes PNG bytes.

Only matplotlib's object API is used: no pyplot state, no rcParams, so that writing a report changes nothing for other
code that draws in the process. Sizes are in CSS pixels, 100 to the inch; `to_png` writes two dots for each.
"""

from __future__ import annotations

import functools
import io
import warnings
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import PercentFormatter

INK, SOFT, FAINT, LINE = "#1c2430", "#5c6675", "#8b95a3", "#e5e8ee"
BLUE, ORANGE = "#2f62b0", "#c8611a"
DASHED = (0, (4, 3))
# One color per canonical emotion (neutral is gray). Found by search: any two are at least 20 units of CIELAB apart for
# normal, protan, deutan and tritan sight.
CLASS_COLORS = ("#9ea1a6", "#efb52e", "#1eb8f1", "#1e2d78", "#ce3c2b", "#2b7b5e", "#a55b97", "#4c0e2f")
_FONTS = ("Inter", "SF Pro Text", "Helvetica Neue", "Segoe UI", "Roboto", "Arial", "Liberation Sans")


def class_color(index: int) -> str:
    """The color of a class; past the eighth the colors come again, paler."""
    lap, place = divmod(index, len(CLASS_COLORS))
    return paler(CLASS_COLORS[place], 1 - 0.6**lap)


def paler(color: str, share: float) -> str:
    """Mixes a color with a share of white; unlike transparency it hides what lies beneath."""
    return to_hex(tuple((1 - share) * np.array(to_rgb(color)) + share))


def to_png(figure: Figure) -> bytes:
    """Draws a figure at two dots per CSS pixel. The same figure gives the same bytes."""
    texts: list[Any] = figure.findobj(Text)
    another = font_with("".join(text.get_text() for text in texts))
    for text in texts:
        text.set_fontfamily([*_font(), *([another.name] if another else [])])
        text.set_parse_math(False)  # a '$' in a name is a dollar
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # that no font of this machine has
        figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()


@functools.cache
def font_with(text: str) -> font_manager.FontEntry | None:
    """Returns a font of this machine that has all letters of a text, the one of matplotlib if it has; None if none."""
    fonts = [font for font in font_manager.fontManager.ttflist if "LastResort" not in font.fname]  # it has boxes only
    fonts.sort(key=lambda font: font.name != "DejaVu Sans")
    needed = {ord(letter) for letter in text if not letter.isspace()}
    return next((font for font in fonts if needed <= FT2Font(font.fname).get_charmap().keys()), None)


@functools.cache
def _font() -> list[str]:
    """A plain sans-serif font that this machine has, then the one that comes with matplotlib."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    return [*[name for name in _FONTS if name in known][:1], "DejaVu Sans"]


def new_figure(width: float, height: float) -> Figure:
    """A white figure of a whole number of CSS pixels."""
    size = (round(width) / 100, round(height) / 100)
    return Figure(figsize=size, layout="constrained", facecolor="white")


def quiet(axes: Axes, x: str = "", y: str = "") -> Axes:
    """A quiet frame under the labels `x` and `y`: horizontal grid, no box."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c9ced7")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.2, labelcolor=SOFT, labelfontfamily=_font()[0])
    axes.set_xlabel(x, fontsize=8.6, color=SOFT)
    axes.set_ylabel(y, fontsize=8.6, color=SOFT)
    axes.margins(x=0.02)
    return axes


def in_percent(axis: Axis) -> None:
    """Writes the ticks of an axis that counts shares in percent."""
    axis.set_major_formatter(PercentFormatter(1.0, symbol="\xa0%"))


def legend_above(figure: Figure, axes: Axes, handles: list | None = None) -> None:
    """A legend above the plot, on as many lines as its words need."""
    handles = handles if handles is not None else axes.get_legend_handles_labels()[0]
    room = 16 * (figure.get_figwidth() - 0.5)  # letters: about 16 to the inch, less the tick labels
    longest = max(len(str(handle.get_label())) for handle in handles) + 6  # and the handle with the space around it
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.1, frameon=False, fontsize=8.4,
        ncols=max(1, min(len(handles), int(room / longest))), labelcolor=INK, handlelength=1.4, columnspacing=1.6,
    )  # fmt: skip
