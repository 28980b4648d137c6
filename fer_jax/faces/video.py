"""Reads the frames of a video file with their times through PyAV (the extra `[video]`)."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fer_jax.errors import UserError, first_line

MICROSECONDS = 1_000_000  # FFmpeg's unit of a file's duration
USUAL_RATE = 25.0  # frames per second of a file that does not state its rate
# Other formats that FFmpeg opens: pictures, text art, and lists of other files.
NO_VIDEO = {"image2", "tty", "bin", "xbin", "adf", "idf", "hls", "dash", "concat", "ffmetadata"}
REMEDY = "give a video, such as .mp4, .avi or .mkv, or download the file again"

Frame = tuple[float, np.ndarray]


def read(
    path: str | os.PathLike,
    *,
    every: int = 1,
    fps: float | None = None,
    on_damage: Callable[[str], Any] | None = None,
) -> Iterator[Frame]:
    """Opens a video and yields (seconds since its first frame, RGB uint8 [H, W, 3]).

    The file is opened and checked at once; frames are decoded on demand, so memory does not grow with the length of the
    video. Frames are rotated upright if the file states the camera's orientation.

    Args:
        path: of the file.
        every: only each n-th frame, starting with the first.
        fps: at most this many frames per second: the first one in every 1/fps seconds.
        on_damage: called with one line after the last decodable frame if the video is incomplete or damaged (for
            example `list.append`, `logging.warning`). By default the line is raised as a UserError, also after that
            frame.

    Raises:
        UserError: if PyAV is missing or the file is not a video.
    """
    path = pathlib.Path(path).expanduser()
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f"{path}: fps={fps} is not valid; give a number above 0")
    av = require(path)
    container, stream = _opened(av, path)
    return _frames(av, path, container, stream, every, fps, on_damage)


def require(path: str | os.PathLike) -> Any:
    """Returns PyAV; raises UserError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path}: reading a video needs PyAV: pip install 'fer_jax[video]'") from error
    return av


def count_frames(path: str | os.PathLike) -> int:
    """Returns about how many frames a video has, by its header; 0 if it cannot be opened or does not say."""
    path = pathlib.Path(path).expanduser()
    try:
        container, stream = _opened(require(path), path)
    except UserError:
        return 0
    with container:
        seconds = _declared_seconds(container, stream) or 0.0
        return stream.frames or round(seconds * float(stream.average_rate or USUAL_RATE))


def _opened(av: Any, path: pathlib.Path) -> tuple[Any, Any]:
    """Returns the opened file and its first video stream."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file; check the path")
    if not path.is_file():
        raise UserError(f"{path} is a folder; give a video file")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty; {REMEDY}")
    try:
        # Only this file is read, even if it refers to others. (`options` would crash on MPEG before PyAV 18.)
        container = av.open(str(path), container_options={"protocol_whitelist": "file"}, **_lenient(av.__version__))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a video, or is incomplete ({first_line(error)}); {REMEDY}") from error
    names = set(container.format.name.split(","))
    if names & NO_VIDEO or any(name.endswith("_pipe") for name in names):
        container.close()
        raise UserError(f"{path} is not a video (it reads as '{container.format.name}'); {REMEDY}")
    if not container.streams.video:
        container.close()
        raise UserError(f"{path} contains no video, only sound or text; {REMEDY}")
    return container, container.streams.video[0]


def _lenient(version: str) -> dict[str, str]:
    """Tolerates metadata that is not valid text; PyAV 19 and later always do and have no such option."""
    return {"metadata_errors": "replace"} if int(version.partition(".")[0]) < 19 else {}


def _frames(
    av: Any,
    path: pathlib.Path,
    container: Any,
    stream: Any,
    every: int,
    fps: float | None,
    on_damage: Callable[[str], Any] | None,
) -> Iterator[Frame]:
    decoding = _Decoding(av, container, stream)
    to_rgb = av.video.reformatter.VideoReformatter()
    rate = float(stream.average_rate or USUAL_RATE)
    first, last, due = None, 0.0, 0
    with container:
        for number, frame in enumerate(decoding):
            time = number / rate if frame.pts is None else float(frame.pts * frame.time_base)
            first = time if first is None else first
            last = time - first
            if number % every:
                continue
            if fps is not None:
                cell = math.floor(last * fps + 1e-6)  # times are multiples of a fraction and inexact
                if cell < due:
                    continue
                due = cell + 1
            rgb = to_rgb.reformat(frame, format="rgb24").to_ndarray()
            yield last, np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))  # both counterclockwise
        problem = decoding.problem(last)
    if first is None:
        raise UserError(f"{path}: no frame could be read ({problem or 'it contains none'}); {REMEDY}")
    if problem is not None:
        line = f"{path} is damaged: {problem}; the last readable frame is at {last:.2f} s: download the file again"
        if on_damage is None:
            raise UserError(line)
        on_damage(line)


class _Decoding:
    """Iterates over the decodable frames of a stream and records what was wrong."""

    def __init__(self, av: Any, container: Any, stream: Any):
        self.av, self.container, self.stream = av, container, stream
        self.lost = 0  # packets that were incomplete or could not be decoded
        self.stopped = ""  # why reading stopped early
        self.begin, self.end = math.inf, -math.inf  # seconds covered by the packets

    def __iter__(self) -> Iterator[Any]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except self.av.FFmpegError as error:
                self.stopped = first_line(error)
                packet = None
            if packet is None:
                return
            if packet.pts is not None:
                pts, unit = packet.pts, packet.time_base
                self.begin = min(self.begin, float(pts * unit))
                self.end = max(self.end, float((pts + (packet.duration or 0)) * unit))
            try:
                frames = packet.decode()  # the last packet is empty and drains the decoder
            except self.av.FFmpegError:
                self.lost += 1
                continue
            self.lost += bool(packet.is_corrupt)
            yield from frames

    def problem(self, last: float) -> str | None:
        """Returns what was wrong, or None; call it after the iteration.

        Args:
            last: seconds from the first frame to the last.
        """
        there = self.end - self.begin if self.end > self.begin else last
        declared = _declared_seconds(self.container, self.stream)
        interval = 1 / float(self.stream.average_rate or USUAL_RATE)
        if declared is not None and there < 0.99 * declared - 2 * interval:
            return f"it is cut off after {there:.2f} of {declared:.2f} s"
        if self.stopped:
            return f"it cannot be read to its end ({self.stopped})"
        return f"{self.lost} packets are incomplete or cannot be decoded" if self.lost else None


def _declared_seconds(container: Any, stream: Any) -> float | None:
    """Returns the length of the video stream according to the file's header, or None if it states none."""
    if "avi" in container.format.name.split(",") and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # the length in AVI is estimated from the existing data
    if stream.duration:
        return float(stream.duration * stream.time_base)
    try:  # Matroska and WebM
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        alone = len(container.streams) == 1  # sound may be longer
        return container.duration / MICROSECONDS if alone and container.duration else None
