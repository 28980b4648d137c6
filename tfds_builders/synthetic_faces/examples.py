"""From a plan to encoded examples, in chunks that worker processes draw.

Threads would wait for Python's lock. Workers are plain subprocesses that run this file's `main`: unlike a
multiprocessing pool they never import the user's main module, so a script without a main guard is safe.
"""

from __future__ import annotations

import io
import os
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from fer_jax.data.corrupt import occluders
from fer_jax.errors import UserError
from fer_jax.labels import AFFECT, EMOTIONS
from fer_jax.randomness import Purpose, Stream
from tfds_builders.synthetic_faces import annotators, clips
from tfds_builders.synthetic_faces.expressions import RECIPES, affect_of
from tfds_builders.synthetic_faces.plan import Plan, person_name
from tfds_builders.synthetic_faces.renderer import Picture, render
from tfds_builders.synthetic_faces.scene import MEAN_INTENSITY, Scene, sample_scene

BASIC_NAMES: tuple[str, ...] = EMOTIONS[:7]
CHUNK = 32
FEW = 1000  # images that are drawn faster than processes start
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


def generate(plan: Plan, split: str, workers: int | None = None) -> Iterator[Example]:
    """Yields the examples of a split in order.

    Args:
      plan: what to draw.
      split: 'train' or 'test'.
      workers: processes to draw with; 0 draws here; by default one per core, eight at most, and none for few images.
    """
    count = plan.count(split)
    frames, step = (plan.frames, 4) if plan.kind == "clips" else (1, CHUNK)
    chunks = [(start, min(start + step, count)) for start in range(0, count, step)]
    if workers is None:
        workers = min(os.cpu_count() or 1, 8) if count * frames >= FEW else 0
    if not workers:
        for chunk in chunks:
            yield from examples_of(plan, split, *chunk)
        return
    root = str(pathlib.Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    command, environment = [sys.executable, "-m", __name__], {**os.environ, "PYTHONPATH": path}
    pool: list[Any] = []
    try:
        for k in range(workers):
            pool.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment))
            pickle.dump((plan, split, chunks[k::workers]), pool[k].stdin)
            pool[k].stdin.close()
        for k in range(len(chunks)):
            yield from pickle.load(pool[k % workers].stdout)
    except (EOFError, pickle.UnpicklingError, BrokenPipeError) as error:
        raise UserError(
            "a process that draws synthetic faces was killed, perhaps for lack of memory: free some, and run the same "
            "command again"
        ) from error
    finally:
        for worker in pool:
            worker.stdout.close()
            worker.terminate()
            worker.wait()


def main() -> None:
    """Serves as a worker: reads a plan and chunks from standard input, writes examples chunk by chunk."""
    plan, split, chunks = pickle.load(sys.stdin.buffer)
    for start, stop in chunks:
        pickle.dump(examples_of(plan, split, start, stop), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
