"""A trained model, read from a run or a model file, without training data or optimizer."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.errors
import jax
import numpy as np

from fer_jax import methods
from fer_jax.config.fields import Config, as_tuples, assign, config_from
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.data.sources.clips import separate
from fer_jax.data.sources.points import MEASURED
from fer_jax.data.sources.source import Source, with_points
from fer_jax.engine.compiler import compilation_cache, use_compilation_cache
from fer_jax.engine.mesh import make_mesh, on_cpu, put_replicated
from fer_jax.errors import UserError
from fer_jax.evaluation.evaluate import Evaluator, Outputs
from fer_jax.evaluation.predictions import PredictionRow, prediction_rows
from fer_jax.evaluation.task import Task, evaluation_task
from fer_jax.faces.crops import CROPPED_LIKE, MARGIN
from fer_jax.faces.detection import Detector, best_detector
from fer_jax.faces.inputs import Input, Picture, find_inputs
from fer_jax.faces.landmarks import LICENSE, Landmarks
from fer_jax.faces.pictures import BadPicture
from fer_jax.inference.explain import ExplainedFace, check_kind, explain_predictions
from fer_jax.inference.predict import Crops, Prediction, Reader, as_crop, predict
from fer_jax.methods import objective, strategies
from fer_jax.runs.model_file import MODEL, REMAKE, Variables, read_model
from fer_jax.storage import reachable

SHIPPED = pathlib.Path(__file__).parents[1] / "shipped" / MODEL  # written by docs/model_card.py
GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        model: the linen module.
        variables: those of the selected step, in the moving average if config.train.ema_decay is set.
        classes: names of the classes, in the order of the outputs.
        preprocessing: from stored pixels to the network's input.
        card: plain JSON values: `method`, `objective`, `model` (the fields of the method's model), `classes`,
            `preprocessing`, `data` (name, split, `data_digest` and picture shape of the training data), `crop` (how its
            faces were cropped: `by` 'points' or 'box', with a `margin`), `scores` (on the test split, once the run is
            finished), `unsure` (the confidence `threshold` that keeps the `risk` on the validation examples, and its
            coverage and risk on the `test` split), `run` (how it was trained), `config` (the whole config of the run),
            `versions`.
        task: what the compiled evaluation reads.
    """

    model: Any
    variables: Variables
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    card: Mapping[str, Any]
    task: Task = dataclasses.field(repr=False)

    @functools.cached_property
    def config(self) -> Config:
        """The config of the run, with the device settings of this machine unless they were overridden."""
        return config_from(self.card["config"])

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices that the model is evaluated on."""
        return make_mesh(self.config.train.platform, self.config.train.devices)

    @property
    def threshold(self) -> float | None:
        """The confidence below which a prediction is unsure; infinite if none keeps the risk, None if none was set."""
        unsure = self.card.get("unsure")
        return None if unsure is None else math.inf if unsure["threshold"] is None else unsure["threshold"]

    @property
    def crops(self) -> Crops:
        """How faces are cropped for this model: like those of its training data."""
        margin, rise = CROPPED_LIKE.get(self.card["data"]["name"].partition("/")[0], (MARGIN, 0.0))
        side, stored = min(self.card["data"]["picture"][:2]), self.card["crop"]
        return Crops(side, stored.get("margin", margin), rise, stored.get("by") == "box")

    def predict(self, faces: Any, *, cropped: bool | None = None, yunet: str | None = None) -> list[PredictionRow]:
        """Returns a row for each face, with `expression` and `probabilities` in the order of `classes`.

        Args:
            faces: N cropped faces, uint8 [N, H, W] or [N, H, W, 1 or 3] (gray or RGB), with one row each. Or a picture,
                uint8 [H, W] or [H, W, 3], or the path of a photo, a video or a folder, or a list of paths, in which
                faces are detected: then every face has a row with its box, and a picture that has no face or cannot be
                read has one row with that status.
            cropped: whether pictures are already cropped faces (True) or faces are detected (False); by default as
                described above.
            yunet: file of the detector YuNet (see `fer_jax.faces.detection.best_detector`).

        Raises:
            UserError: for anything else, and if the method predicts no classes.
        """
        return [row for prediction in self._predictions(faces, cropped, yunet) for row in prediction.rows]

    def explain(
        self,
        faces: Any,
        *,
        kind: str = "detail",
        cropped: bool | None = None,
        yunet: str | None = None,
        frames_per_second: float | None = None,
    ) -> list[ExplainedFace]:
        """Returns a map of where the model looks for each row that `predict` returns for the same faces.

        Args:
            faces, cropped, yunet: as for `predict`.
            kind: 'detail', 'cam', 'gradcam' or 'attention' (see `fer_jax.inference.explain`), of the predicted class.
            frames_per_second: of a video, at most; None for all frames.

        Raises:
            UserError: as `predict`; for an unknown kind, and one that the method does not have.
        """
        check_kind(self, kind)
        return explain_predictions(self, self._predictions(faces, cropped, yunet, frames_per_second), kind)

    def _predictions(
        self, faces: Any, cropped: bool | None, yunet: str | None, frames_per_second: float | None = None
    ) -> Iterator[Prediction]:
        """Yields what `predict` finds, with the faces."""
        array = None if isinstance(faces, str | os.PathLike) or not hasattr(faces, "shape") else np.asarray(faces)
        searched = (array is None or _is_picture(array)) if cropped is None else not cropped
        if array is None:
            paths = [faces] if isinstance(faces, str | os.PathLike) else faces
            if not (isinstance(paths, list | tuple) and all(isinstance(path, str | os.PathLike) for path in paths)):
                raise UserError("give a path, a list of paths, or an array of uint8")
            inputs = find_inputs(paths)
        else:
            array = _checked(array[None] if _is_picture(array) else array)
            if not searched:
                self._check_predicts()
                array = self._cropped(array)
                outputs = self.outputs(self.source_of(array))
                known: Any = {"threshold": self.threshold, "affect": outputs.get("affect")}
                rows = prediction_rows(outputs["logits"], self.classes, source="array", rows=range(len(array)), **known)
                yield Prediction(Picture("array", None), list(rows), list(array))
                return
            images = [np.broadcast_to(image, (*image.shape[:2], 3)).copy() for image in array]
            inputs = [Input(f"array[{n}]" if len(images) > 1 else "array", "photo", i) for n, i in enumerate(images)]
        detector = best_detector(yunet) if searched else None
        yield from predict(inputs, self.reader(detector, frames_per_second=frames_per_second))

    def _cropped(self, faces: np.ndarray) -> np.ndarray:
        """Returns faces [N, H, W, C] in the size of the model's crops, as those of files."""
        try:
            return np.stack([as_crop(face, self.crops.size) for face in faces])
        except BadPicture as error:
            raise UserError(f"a face of the array {error}") from error

    def reader(
        self, detector: Detector | None, *, smoothing: float = 0.0, frames_per_second: float | None = None
    ) -> Reader:
        """Returns how faces are found in pictures and classified by this model; see `Reader`.

        Raises:
            UserError: if the method predicts no classes, or needs landmarks and no landmark detector is installed.
        """
        self._check_predicts()
        if self.config.data.points in MEASURED:
            _ = self._finder  # what it needs and lacks is said before anything is written
        clip_logits = self._clip_logits if self.task.method.takes == "frames" else None
        return Reader(
            outputs=lambda faces: self.outputs(self.source_of(faces)),
            classes=self.classes,
            crops=self.crops,
            detector=detector,
            threshold=self.threshold,
            smoothing=smoothing,
            frames_per_second=frames_per_second,
            clip_logits=clip_logits,
        )

    def _clip_logits(self, frames: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits [C] of one clip and the weights [T] of its frames, all equal if the method has none."""
        name = self.task.method.attention
        outputs = self.outputs(self.source_of(frames, mask), (name,) if name else ())
        weights: np.ndarray = outputs.get(name, mask / np.full(len(mask), max(mask.sum(), 1)))
        return outputs["logits"][0], weights

    def _check_predicts(self) -> None:
        if self.task.method.measures:
            raise UserError(f"{self.card['method']} predicts no expressions: give a model of another method")

    def logits(self, faces: Source | np.ndarray) -> np.ndarray:
        """Returns float32 [N, C] for the examples of a source, or for N cropped faces (see `predict`)."""
        if not isinstance(faces, Source):
            faces = self.source_of(faces)
        return self.outputs(faces)["logits"]

    def outputs(self, source: Source, names: Sequence[str] = (), variables: Variables | None = None) -> Outputs:
        """Returns `logits` float32 [N, C] and the named intermediates [N, ...] of a source's examples.

        Args:
            source: the examples.
            names: of intermediates that the model returns, or of fields of the network's input.
            variables: to use instead of the trained ones, such as those of an untrained model.
        """
        try:
            return self._evaluator(source, tuple(names))(variables or self.placed, source)
        except flax.errors.FlaxError as error:
            raise UserError(
                f"the weights do not fit the model that this version of fer_jax builds of {self.card['method']} "
                f"({str(error).splitlines()[0]}): read them with fer_jax {self.card['versions']['fer_jax']}"
            ) from error

    def task_for(self, picture_shape: Sequence[int]) -> Task:
        """Returns the task for pictures (H, W, C): of larger ones than it was trained on, a larger middle is seen."""
        side, trained_on = min(picture_shape[:2]), min(self.card["data"]["picture"][:2])
        crop = round(self.preprocessing.crop * side / trained_on)
        return dataclasses.replace(self.task, preprocessing=dataclasses.replace(self.preprocessing, crop=crop))

    def _evaluator(self, source: Source, names: tuple[str, ...]) -> Evaluator:
        """Returns the compiled evaluation for such a source; it is kept for the next call."""
        count = len(source.frames["frames"]) if source.frames else len(source)  # the trunk takes frames
        batch = min(self.config.evaluation.batch_size, 1 << max(count - 1, 0).bit_length())
        key = batch, names, min(source.picture_shape[:2])
        if key not in self._evaluators:
            task = dataclasses.replace(self.task_for(source.picture_shape), profiles=names or self.task.profiles)
            self._evaluators[key] = Evaluator(task, self.mesh, batch)
        return self._evaluators[key]

    @functools.cached_property
    def placed(self) -> Variables:
        """The variables on the devices."""
        return put_replicated(self.mesh, self.variables)

    @functools.cached_property
    def _evaluators(self) -> dict[Any, Evaluator]:
        return {}

    def source_of(self, faces: np.ndarray, mask: np.ndarray | None = None) -> Source:
        """Makes a source of an array of cropped faces; with `mask` [T] they are the frames of one clip."""
        faces = _checked(faces)
        if self.card["data"]["picture"][-1] == 1 and faces.shape[-1] == 3:  # it has learned from gray pictures
            faces = np.rint(faces @ GRAY).astype(np.uint8)[..., None]
        count = len(faces) if mask is None else 1
        arrays = {"label": np.zeros(count, np.int32), "index": np.arange(count, dtype=np.int32)}
        frames: dict[str, np.ndarray] = {}
        if self.task.method.takes == "frames":  # each face is a clip of one frame
            length, seen = np.full(count, len(faces) // count, np.int32), np.ones(len(faces), bool)
            fields = {"length": length, "frames": faces, "frame_mask": seen if mask is None else mask}
            arrays, frames = separate(arrays | fields)
        else:
            arrays["image"] = faces
        kind = self.config.data.points
        if kind in MEASURED:
            (frames or arrays)["landmarks"] = self._landmarks(faces)
        source = Source(self.card["data"]["name"], "", self.classes, arrays, np.arange(count), frames)
        source = with_points(source, kind) if kind else source
        return dataclasses.replace(source, name="array")

    def _landmarks(self, faces: np.ndarray) -> np.ndarray:
        """Returns the 68 landmarks [N, 68, 2] of cropped faces, NaN where none are found (extra `[landmarks]`)."""
        found = [self._finder(face) for face in faces]
        return np.stack([np.full((68, 2), np.nan, np.float32) if marks is None else marks for marks in found])

    @functools.cached_property
    def _finder(self) -> Landmarks:
        finder = Landmarks()
        print(f"note: {LICENSE}", file=sys.stderr, flush=True)  # tables go to the standard output
        return finder


def load(path: str | None = None) -> Trained:
    """Reads a trained model; see `read` for the arguments and errors."""
    return build(*read(path), {})


def read(path: str | None = None) -> tuple[Variables, dict[str, Any]]:
    """Returns the variables of a trained model as NumPy arrays, and its card.

    Args:
        path: the folder of a run that has saved, or a model file; the model that comes with fer_jax by default.

    Raises:
        UserError: if there is no model, if it is damaged, written in another format, or of a method that is not
            installed.
    """
    place = reachable(str(path or SHIPPED), "the model")
    file = place / MODEL if place.is_dir() else place
    if not place.exists():
        raise UserError(f"there is no model file and no run at {place}")
    if not file.exists():
        raise UserError(
            f"{place} holds no {MODEL}: give the folder of one run, of one seed or fold, that has saved a model; if it "
            f"was deleted, {REMAKE}"
        )
    variables, card = read_model(file)
    needed = [("method", card["method"], methods.names())]
    needed += [("strategy", name, strategies.names()) for name in objective.parts(card["objective"])]
    for kind, name, known in needed:
        if name not in known:
            raise UserError(
                f"{file} was trained with the {kind} '{name}', which is not installed (there are {', '.join(known)})"
            )
    return variables, card


def build(variables: Variables, card: Mapping[str, Any], changes: Mapping[str, Any]) -> Trained:
    """Builds the model of a card, with some fields of its config replaced, given by path ('evaluation.flip')."""
    if not compilation_cache():
        use_compilation_cache()
    config = config_from(card["config"])
    config.train.platform, config.train.devices = "auto", 0
    for field, value in changes.items():
        assign(config, field, value)
    fields = {k: as_tuples(v) for k, v in card["model"].items()} | config.model.to_dict()
    card = dict(card) | {"config": config.to_dict(), "model": fields}
    accelerated = not on_cpu(make_mesh(config.train.platform, config.train.devices))
    task = evaluation_task(config, len(card["classes"]), fields, accelerated)
    return Trained(task.model, variables, tuple(card["classes"]), task.preprocessing, card, task)


def _is_picture(faces: np.ndarray) -> bool:
    """Whether an array is one picture, [H, W] or [H, W, 3], and not a list of faces."""
    return faces.ndim == 2 or (faces.ndim == 3 and faces.shape[-1] == 3)


def _checked(faces: Any) -> np.ndarray:
    """Returns faces as uint8 [N, H, W, 1 or 3]."""
    faces = np.asarray(faces)
    single = _is_picture(faces)
    if faces.ndim == 3 and not single:
        faces = faces[..., None]
    if single or faces.ndim != 4 or faces.shape[-1] not in (1, 3) or not faces.size:
        raise UserError(
            f"an array of shape {list(faces.shape)} is not a list of cropped faces: give [N, H, W] or [N, H, W, 3]"
            + (f", for one face [1, {', '.join(map(str, faces.shape))}]" if single else "")
        )
    if faces.dtype != np.uint8:
        raise UserError(f"the faces have the type {faces.dtype}: give uint8, pixels from 0 to 255")
    return faces
