"""The few pieces of HTML a report is made of. Text is escaped unless it is `Html` already."""

from __future__ import annotations

import html
import importlib.resources
import string
from collections.abc import Iterable, Mapping
from typing import Any

THIN = "\N{NARROW NO-BREAK SPACE}"
_VOID = frozenset({"img", "br"})


class Html(str):
    """Markup that is safe to insert as it stands."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Builds one element: `class_` is written class, `aria_hidden` aria-hidden; None leaves one out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Html:
    """Concatenates; everything that is not `Html` is escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(str(child)) for child in children))


def page(title: str, body: Iterable[object]) -> str:
    """The whole document: the template beside this module with its two blanks filled."""
    template = importlib.resources.files("fer_jax.report").joinpath("page.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(title=html.escape(title), body=join(body))


def section(title: str, explanation: object, *content: object) -> Html:
    """A heading, a sentence on how to read what follows, and that."""
    return element("section", element("h2", title), element("p", explanation), *content)


def figure_card(title: str, explanation: str, image: Html, *, wide: bool = False) -> Html:
    """A titled picture on a card."""
    caption = element("figcaption", element("h3", title), element("p", explanation))
    return element("figure", caption, image, class_="card wide" if wide else "card")


def score_card(
    title: str,
    value: str,
    unit: str,
    note: str,
    *,
    at: float | None = None,
    interval: Iterable[float] | None = None,
) -> Html:
    """A headline number; `at` and `interval`, both in [0, 1], are drawn on a track from 0 to 100 %."""
    track = Html()
    if at is not None:
        marks = [element("b", style=f"left:{100 * at:.2f}%")]
        if interval is not None:
            low, high = (min(max(end, 0.0), 1.0) for end in interval)  # Student's may reach beyond
            marks.insert(0, element("i", style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"))
        track = element("div", *marks, class_="track", aria_hidden="true")
    number = element("p", value, element("span", unit, class_="unit") if unit else "", class_="value")
    return element("div", element("h3", title), number, track, element("p", note), class_="card")


def class_name(name: str, color: str) -> Html:
    """A class in its colour: a dot, because the colours are too light to write in."""
    return element("span", element("i", style=f"background:{color}"), element("span", name), class_="class")


def table(rows: Iterable[tuple[object, object]], class_: str) -> Html:
    """Two columns: what, and its value."""
    return element(
        "table",
        *(element("tr", element("th", a, scope="row"), element("td", b)) for a, b in rows),
        class_=class_,
    )


def details(title: str, rows: Iterable[tuple[object, object]]) -> Html:
    """A table that opens on a click."""
    return element("details", element("summary", title), table(rows, "details"), class_="card")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Rows of a nested mapping under dotted names; tables and long lists are left out."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            if len(value) <= 32 and not any(isinstance(item, list | tuple | Mapping) for item in value):
                rows.append((f"{prefix}{key}", ", ".join(plain(item) for item in value) or "none"))
        else:
            rows.append((f"{prefix}{key}", plain(value)))
    return rows


def plain(value: object) -> str:
    """A value as one would write it by hand: six digits, thousands marked."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def percent(value: float, digits: int = 1) -> str:
    """0.7243 -> '72.4 %'."""
    return f"{100 * value:.{digits}f}{THIN}%"


def duration(seconds: float) -> str:
    """5130 -> '1 h 26 min'."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours:,}{THIN}h {minutes}{THIN}min"
    return f"{minutes}{THIN}min {left}{THIN}s" if minutes else f"{left}{THIN}s"
