"""From a plan to encoded examples, in chunks that threads draw."""

from __future__ import annotations

import collections
import io
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from fer_jax.data.corrupt import occluders
from fer_jax.labels import AFFECT, EMOTIONS
from fer_jax.randomness import Purpose, Stream
from tfds_builders.synthetic_faces import annotators, clips
from tfds_builders.synthetic_faces.expressions import RECIPES, affect_of
from tfds_builders.synthetic_faces.plan import Plan, person_name
from tfds_builders.synthetic_faces.renderer import Picture, render
from tfds_builders.synthetic_faces.scene import MEAN_INTENSITY, Scene, sample_scene

BASIC_NAMES: tuple[str, ...] = EMOTIONS[:7]
CHUNK = 32
AHEAD = 16  # chunks drawn before they are asked for
Example = dict[str, Any]


def draw(plan: Plan, split: str, positions: np.ndarray) -> tuple[Scene, Picture]:
    """Draws still pictures of a plan (for clips, the apex without time)."""
    index, subject, category = plan.identify(split, positions)
    scene = sample_scene(plan.seed, plan.size, index, subject, category)
    cover = occluders.sample_occluder(plan.seed, plan.bank, scene.index, scene.pose) if plan.bank else None
    return scene, render(scene, cover)


def votes_of(scene: Scene) -> np.ndarray:
    """Returns the ten annotators' votes, [B, 10] int64."""
    first = np.array([BASIC_NAMES.index(RECIPES[c].dominant) for c in scene.category])
    second = np.array([BASIC_NAMES.index(RECIPES[c].second or RECIPES[c].dominant) for c in scene.category])
    said = annotators.vote_distribution(first, second, scene.intensity.astype(np.float64), MEAN_INTENSITY)
    return annotators.vote(Stream(scene.seed, Purpose.VOTES, scene.index), said)


def encode_png(pixels: np.ndarray, gray: bool = False) -> bytes:
    """Returns [H, W, 3] or [H, W] uint8 as PNG, with one channel if it is `gray`."""
    buffer, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert("L") if gray else image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _still_examples(plan: Plan, split: str, positions: np.ndarray) -> list[Example]:
    scene, picture = draw(plan, split, positions)
    votes = votes_of(scene)
    _, subject, _ = plan.identify(split, positions)
    pose = np.stack([scene.pose.yaw, scene.pose.pitch, scene.pose.roll], axis=-1)
    return [
        {
            "image": encode_png(picture.image[i], plan.gray),
            "landmarks": picture.landmarks[i],
            "action_units": scene.units[i],
            "occlusion_mask": encode_png(picture.occlusion[i].astype(np.uint8) * 255),
            "occluded_fraction": float(np.count_nonzero(picture.occlusion[i]) / plan.size**2),
            "pose": pose[i],
            **_names(plan, int(scene.category[i]), votes[i], int(subject[i]), float(scene.intensity[i])),
        }
        for i in range(len(positions))
    ]


def _names(plan: Plan, category: int, votes: np.ndarray, subject: int, intensity: float) -> Example:
    recipe = RECIPES[category]
    named = {
        "code": BASIC_NAMES.index(recipe.dominant),
        "compound_label": category,
        "votes": votes,
        "intensity": intensity,
        **(dict(zip(AFFECT, affect_of(category, intensity), strict=True)) if plan.affect else {}),
    }
    if plan.kind == "identities":
        return {"label": person_name(subject), **named}
    return {"label": recipe.name if plan.kind == "compound" else recipe.dominant, **named, "subject": subject}


def _clip_examples(plan: Plan, split: str, positions: np.ndarray) -> list[Example]:
    index, subject, category = plan.identify(split, positions)
    examples = []
    for i in range(len(positions)):
        apex = sample_scene(plan.seed, plan.size, index[i : i + 1], subject[i : i + 1], category[i : i + 1])
        clip = clips.draw_clip(apex, plan.frames, bank=split)
        examples.append(
            {
                "frames": [encode_png(frame, plan.gray) for frame in clip.picture.image],
                "frame_mask": clip.has_face,
                "landmarks": clip.picture.landmarks,
                "action_units": clip.units,
                "frame_intensity": clip.intensity,
                "occlusion_mask": [encode_png(m.astype(np.uint8) * 255) for m in clip.picture.occlusion],
                "occluded_fraction": np.array(
                    [np.count_nonzero(m) / plan.size**2 for m in clip.picture.occlusion], np.float32
                ),
                "pose": clip.pose,
                **_names(plan, int(category[i]), votes_of(apex)[0], int(subject[i]), float(apex.intensity[0])),
            }
        )
    return examples


def examples_of(plan: Plan, split: str, start: int, stop: int) -> list[Example]:
    """Returns the encoded examples start .. stop-1 of a split. Their content depends on nothing else."""
    make = _clip_examples if plan.kind == "clips" else _still_examples
    return make(plan, split, np.arange(start, stop))


def generate(plan: Plan, split: str, workers: int = 0) -> Iterator[Example]:
    """Yields the examples of a split in order.

    Args:
      plan: what to draw.
      split: 'train' or 'test'.
      workers: threads to draw with, side by side since NumPy releases Python's lock; 0 is one per core, eight at most.
    """
    count, step = plan.count(split), 4 if plan.kind == "clips" else CHUNK
    drawn: collections.deque[Future[list[Example]]] = collections.deque()
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, 8)) as pool:
        for start in range(0, count, step):
            drawn.append(pool.submit(examples_of, plan, split, start, min(start + step, count)))
            if len(drawn) > AHEAD:  # what waits to be stored must not fill the memory
                yield from drawn.popleft().result()
        while drawn:
            yield from drawn.popleft().result()
