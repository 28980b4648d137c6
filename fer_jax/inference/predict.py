"""Predicts expressions in photos, folders, videos and cameras: finds, tracks, crops and classifies faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from fer_jax.evaluation.metrics import log_softmax
from fer_jax.evaluation.predictions import PredictionRow, prediction_rows
from fer_jax.faces.crops import Face, crop_face
from fer_jax.faces.detection import Detector
from fer_jax.faces.inputs import Input, Picture, read
from fer_jax.faces.pictures import BadPicture
from fer_jax.faces.tracking import Tracker, Tracks

FACES_AT_ONCE = 32  # the batch of the network
PIXELS_WAITING = 16_000_000  # of pictures whose faces are not classified yet: bounds the memory

MOST_FRAMES = 4096  # of a clip that a model takes as a whole

Outputs = Mapping[str, np.ndarray]
ClipLogits = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Crops:
    """How a model's faces are cropped.

    Attributes:
        size: side in pixels.
        margin, rise, by_box: as in `fer_jax.faces.crops.crop_face`.
    """

    size: int
    margin: float = 0.0
    rise: float = 0.0
    by_box: bool = False


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A picture and a row for each of its faces; one row that says so if it has none or cannot be read.

    `faces` are those of the rows as the model is given them: uint8 [H, W, 1 or 3], of a clip [T, H, W, 3], black
    where a frame has no face. A picture without a face has none.
    """

    picture: Picture
    rows: list[PredictionRow]
    faces: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Reader:
    """How the pictures of an input are turned into predictions.

    Attributes:
        outputs: of cropped faces uint8 [N, size, size, 3]: `logits` float32 [N, C] and, if the model predicts valence
            and arousal, `affect` [N, 2].
        classes: C names.
        crops: how faces are cropped.
        detector: finds the faces; None if each picture is an already cropped face.
        threshold: confidence below which a row is unsure; None if the model has none.
        smoothing: weight of the earlier probabilities of a face in the next frame of a video, 0 for none.
        frames_per_second: of a video, at most; None for all frames.
        clip_logits: of a model that takes clips, in place of `outputs`: (frames uint8 [T, size, size, 3], which of them
            have a face, bool [T]) -> (float32 [C], weights of the frames [T]).
    """

    outputs: Callable[[np.ndarray], Outputs]
    classes: Sequence[str]
    crops: Crops
    detector: Detector | None
    threshold: float | None = None
    smoothing: float = 0.0
    frames_per_second: float | None = None
    clip_logits: ClipLogits | None = None


def predict(inputs: Iterable[Input], reader: Reader) -> Iterator[Prediction]:
    """Yields the picture and rows of each photo and frame, in order; memory does not grow with their number.

    A model that takes clips returns one row for each input, for the face that is largest at its beginning.
    """
    if reader.clip_logits:
        yield from (_predict_clip(source, reader, reader.clip_logits) for source in inputs)
        return
    waiting: list[tuple[Picture, list[_Found]]] = []
    classifier = _Classifier(reader)
    for source in inputs:
        tracks = None if source.kind == "photo" else Tracks()
        for picture in read(source, reader.frames_per_second):
            try:
                found = _find(picture, reader, tracks)
            except BadPicture as error:
                picture, found = dataclasses.replace(picture, image=None, problem=str(error)), []
            waiting.append((picture, found))
            if source.kind == "camera" or _full(waiting):
                yield from classifier(waiting)
                waiting = []
    yield from classifier(waiting)


def _predict_clip(source: Input, reader: Reader, clip_logits: ClipLogits) -> Prediction:
    tracker, crops, empty = Tracker(), [], np.zeros((reader.crops.size, reader.crops.size, 3), np.uint8)
    picture = Picture(source.name, None)
    for picture in read(source, reader.frames_per_second):
        if picture.image is None or len(crops) == MOST_FRAMES:
            problem = picture.problem or f"has more than {MOST_FRAMES:,} frames: give --fps, of the frames to take"
            return Prediction(picture, [PredictionRow(source.name, status=f"unreadable: {problem}")])
        try:
            found = _find(picture, reader, tracker)
        except BadPicture as error:
            return Prediction(picture, [PredictionRow(source.name, status=f"unreadable: {error}")])
        crops.append(found[0].crop if found else None)
    mask = np.array([crop is not None for crop in crops])
    if not mask.any():
        return Prediction(picture, [PredictionRow(source.name, status="no_face")])
    frames = np.stack([empty if crop is None else crop for crop in crops])
    logits, weights = clip_logits(frames, mask)
    (row,) = prediction_rows(logits[None], reader.classes, source=source.name, rows=[0], threshold=reader.threshold)
    return Prediction(picture, [dataclasses.replace(row, row=None, frame_weights=tuple(weights.tolist()))], [frames])


@dataclasses.dataclass(frozen=True)
class _Found:
    """A face that was found and cropped; no box where the picture is the face."""

    crop: np.ndarray
    face: Face | None = None
    track: int | None = None


def _find(picture: Picture, reader: Reader, tracking: Tracks | Tracker | None) -> list[_Found]:
    """Finds and crops the faces of a picture: all of them, or the one that a tracker follows."""
    image, crops = picture.image, reader.crops
    if image is None:
        return []
    if reader.detector is None:
        return [_Found(as_crop(image, crops.size))]
    faces, time = reader.detector(image), picture.time or 0.0
    tracked: list[tuple[int | None, Face]] = [(None, face) for face in faces]
    if isinstance(tracking, Tracks):
        tracked = [*tracking(faces, time)]
    elif isinstance(tracking, Tracker):
        face = tracking(faces, time)
        tracked = [(tracking.track, face)] if face else []
    found = []
    for track, face in tracked:
        if (crop := crop_face(image, face, **dataclasses.asdict(crops))) is not None:
            found.append(_Found(crop.image, face, track))
    return found


def as_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Returns a picture that is a cropped face in the size of the model's crops.

    Raises:
        BadPicture: if it is not square: the face would be stretched.
    """
    height, width = image.shape[:2]
    if height != width:
        raise BadPicture(f"has {width}x{height} pixels, and a cropped face is square: let faces be searched in it")
    if height == size:
        return image
    how = cv2.INTER_AREA if height > size else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=how).reshape(size, size, -1)


def _full(waiting: Sequence[tuple[Picture, list[_Found]]]) -> bool:
    faces = sum(len(found) for _, found in waiting)
    pixels = sum(picture.image.size // 3 for picture, _ in waiting if picture.image is not None)
    return faces >= FACES_AT_ONCE or pixels >= PIXELS_WAITING or len(waiting) >= 4 * FACES_AT_ONCE


class _Classifier:
    """Makes rows of pictures whose faces are found; remembers the probabilities of each track."""

    def __init__(self, reader: Reader):
        self._reader = reader
        self._batch = 0  # of the network, decided by the first faces: one program serves all
        self._past: dict[tuple[str, int], np.ndarray] = {}  # log-probabilities by source and track

    def __call__(self, waiting: Sequence[tuple[Picture, list[_Found]]]) -> Iterator[Prediction]:
        crops = [found.crop for _, founds in waiting for found in founds]
        outputs = iter(self._outputs(crops))
        for picture, founds in waiting:
            if not founds:
                status = f"unreadable: {picture.problem}" if picture.image is None else "no_face"
                place = {"frame": picture.frame, "time": picture.time}
                yield Prediction(picture, [PredictionRow(picture.source, status=status, **place)])
                continue
            rows = [self._row(picture, n, found, next(outputs)) for n, found in enumerate(founds)]
            yield Prediction(picture, rows, [found.crop for found in founds])

    def _outputs(self, crops: list[np.ndarray]) -> Sequence[Outputs]:
        """Classifies in batches of one size, the last one padded; returns the outputs of each face."""
        if not crops:
            return []
        self._batch = self._batch or min(FACES_AT_ONCE, 1 << (len(crops) - 1).bit_length())
        padded = [*crops, *[np.zeros_like(crops[0])] * (-len(crops) % self._batch)]
        parts = [
            self._reader.outputs(np.stack(padded[begin : begin + self._batch]))
            for begin in range(0, len(padded), self._batch)
        ]
        each = [{name: values[n] for name, values in part.items()} for part in parts for n in range(self._batch)]
        return each[: len(crops)]

    def _row(self, picture: Picture, number: int, found: _Found, outputs: Outputs) -> PredictionRow:
        reader, logits = self._reader, outputs["logits"]
        if reader.smoothing and found.track is not None:
            logits = self._smoothed((picture.source, found.track), logits)
        affect = outputs["affect"][None] if "affect" in outputs else None
        known: Any = {"threshold": reader.threshold, "affect": affect}
        (row,) = prediction_rows(logits[None], reader.classes, source=picture.source, rows=[0], **known)
        place: dict[str, Any] = {"row": None, "frame": picture.frame, "time": picture.time, "track": found.track}
        if found.face:
            x, y, width, height = found.face.box
            place |= {"face": number, "x": x, "y": y, "width": width, "height": height}
        return dataclasses.replace(row, **place)

    def _smoothed(self, key: tuple[str, int], logits: np.ndarray) -> np.ndarray:
        """Returns the log of the exponential average of the probabilities along a track."""
        share = self._reader.smoothing
        now = np.exp(log_softmax(logits[None])[0])
        mean = now if key not in self._past else share * self._past[key] + (1 - share) * now
        self._past = {k: v for k, v in self._past.items() if k[0] == key[0]} | {key: mean}
        return np.log(np.maximum(mean, 1e-30)).astype(np.float32)
