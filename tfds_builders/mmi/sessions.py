"""Selects the sessions of MMI that hold a video of a frontal face with one of the six emotions."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from fer_jax.faces.pictures import is_picture
from fer_jax.parsing import Unreadable, read_xml, whole_number
from tfds_builders.listing import files_below
from tfds_builders.problems import Problems

FRONTAL, PROFILE, BOTH = "0", "1", "2"  # the views of a track; BOTH: side by side in one frame
VIDEO = re.compile(r"(S\d{3})-(\d{3})\.avi", re.IGNORECASE)
HIGHEST = 6  # codes above are scream, bored, sleepy and others
LEFT = {  # reasons to leave a session out, and their wording
    "stills": "of stills",
    "profile": "of a profile",
    "unlabeled": "without an emotion",
    "others": f"with an emotion above {HIGHEST}",
}


class Session(NamedTuple):
    """A selected video.

    Attributes:
        path: of the video.
        subject: 'S001'.
        name: 'S001-002'.
        view: `FRONTAL` or `BOTH`.
        code: of the emotion, 1..6.
    """

    path: str
    subject: str
    name: str
    view: str
    code: int


def read_session(folder: str, left: Counter[str], problems: Problems) -> Session | None:
    """Reads a session's two small XML files; None if it is left out, which is counted in `left` or a problem."""
    files = {name: path for name, path in files_below(folder).items() if not name.startswith(".")}
    videos = [name for name in sorted(files) if name.lower().endswith(".avi")]
    if not videos and any(map(is_picture, files)):
        left["stills"] += 1
        return None
    if not videos and not any(name.lower().endswith(".xml") for name in files):
        return None  # empty, or not a session
    if len(videos) != 1:
        if videos:
            problems.mistake(folder, f"holds {len(videos)} videos: a session has one, remove the others")
        else:
            problems.gap(folder, "holds neither a video nor pictures: download the session again")
        return None
    match = VIDEO.fullmatch(videos[0])
    if match is None:
        problems.mistake(files[videos[0]], "is not named like MMI's videos, such as S001-002.avi: restore its name")
        return None
    name = os.path.splitext(videos[0])[0]
    if "session.xml" not in files:
        problems.gap(f"{folder}/session.xml", "is not there: download the session again")
        return None
    view = _view(files["session.xml"], videos[0], problems)
    if view is None:
        return None
    if view == PROFILE:
        left["profile"] += 1
        return None
    code = _emotion(files[f"{name}.xml"], problems) if f"{name}.xml" in files else 0
    if code is None:
        return None
    if not code or code > HIGHEST:
        left["others" if code else "unlabeled"] += 1
        return None
    return Session(files[videos[0]], match[1].upper(), name, view, code)


def left_out(left: Mapping[str, int]) -> str:
    """Returns a line on the sessions that were left out, '' if none was."""
    parts = [f"{left[reason]:,} {said}" for reason, said in LEFT.items() if left[reason]]
    return f"left out: {', '.join(parts)}" if parts else ""


def _view(path: str, video: str, problems: Problems) -> str | None:
    """Returns the view of the video's track, else of the first one; None, and a problem, if the file has none."""
    root = _parsed(path, problems)
    if root is None:
        return None
    tracks = _elements(root, "track")
    mine = [track for track in tracks if os.path.basename(track.get("filename", "")).lower() == video.lower()]
    view = (mine or tracks)[0].get("view") if tracks else None
    if view not in (FRONTAL, PROFILE, BOTH):
        said = "no track with a view" if view is None else f"the view '{view[:20]}'"
        problems.mistake(path, f"has {said}, and views are 0, 1 and 2: download the session again")
        return None
    return view


def _emotion(path: str, problems: Problems) -> int | None:
    """Returns the code of the emotion, 0 without one; None, and a problem, for an invalid code."""
    root = _parsed(path, problems)
    if root is None:
        return None
    values = [tag.get("Value", "") for tag in _elements(root, "Metatag") if tag.get("Name") == "Emotion"]
    if not values:
        return 0
    value = values[0].strip()
    code = whole_number(value, 1)
    if code is None:
        problems.mistake(
            path, f"has the emotion '{value[:20]}', and codes are numbers from 1: download the session again"
        )
        return None
    return code


def _parsed(path: str, problems: Problems) -> xml.Element | None:
    try:
        return read_xml(path, "download the session again")
    except Unreadable as error:
        problems.gap(path, error.what)
        return None


def _elements(root: xml.Element, tag: str) -> list[xml.Element]:
    """Returns all elements of a name in any namespace."""
    return [element for element in root.iter() if str(element.tag).rpartition("}")[2] == tag]
