"""The pieces of HTML that a report is made of. Text is escaped unless it is `Html` already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

THIN = "\N{NARROW NO-BREAK SPACE}"
_VOID = frozenset({"img", "br", "hr"})


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
    return Html(f"<{tag}{written}>" if tag in _VOID else f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[object]) -> Html:
    """Concatenates; everything that is not `Html` is escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(str(child)) for child in children))


def section(title: str, explanation: object, *content: object) -> Html:
    """A heading, a sentence on how to read what follows, and that."""
    return element("section", element("h2", title), element("p", explanation), *content)


def figure_card(title: str, explanation: str, image: Html, *, wide: bool = False) -> Html:
    """A titled picture on a card."""
    caption = element("figcaption", element("h3", title), element("p", explanation))
    return element("figure", caption, image, class_="card wide" if wide else "card")


def table(rows: Iterable[Sequence[object]], *, head: Sequence[str] = (), class_: str = "facts-table") -> Html:
    """Rows of cells, the first of each its heading, under the titles of the columns."""
    lines = [element("tr", *(element("th", title, scope="col") for title in head))] if head else []
    for name, *cells in rows:
        lines.append(element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells)))
    return element("table", *lines, class_=class_)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Rows of a nested mapping under dotted names; tables and long lists are left out."""
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            rows.append((f"{prefix}{key}", plain(value)))
        elif len(value) <= 32 and not any(isinstance(item, list | tuple | Mapping) for item in value):
            rows.append((f"{prefix}{key}", ", ".join(plain(item) for item in value) or "none"))
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
    """5130 -> '1 h 25 min'."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours:,}{THIN}h {minutes}{THIN}min"
    return f"{minutes}{THIN}min {left}{THIN}s" if minutes else f"{left}{THIN}s"
