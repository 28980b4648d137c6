"""Contact sheets of the synthetic faces.

python -m tfds_builders.synthetic_faces.gallery faces.png [--kind basic|compound|clips|occluded] [--size 160]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from tfds_builders.synthetic_faces import clips
from tfds_builders.synthetic_faces.examples import BASIC_NAMES, draw
from tfds_builders.synthetic_faces.expressions import BASIC_RECIPES, COMPOUND_NAMES, RECIPES
from tfds_builders.synthetic_faces.plan import Plan
from tfds_builders.synthetic_faces.renderer import render
from tfds_builders.synthetic_faces.scene import sample_scene

CAPTION = 14  # pixels


def contact_sheet(
    images: np.ndarray | Sequence[np.ndarray],
    labels: Sequence[str] | None,
    path: str,
    columns: int = 7,
    landmarks: np.ndarray | None = None,
) -> None:
    """Writes pictures in rows, each with its caption below.

    Args:
      images: N pictures [H, W, 3] uint8 of one size.
      labels: N captions, or None for a sheet without.
      path: file to write; its ending chooses the format.
      columns: pictures in a row.
      landmarks: [N, P, 2] points to mark, in pixels.
    """
    side = images[0].shape[0]
    cell = side + (CAPTION if labels is not None else 0)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, rows * cell), "white")
    pen = ImageDraw.Draw(sheet)
    for n, image in enumerate(images):
        left, top = n % columns * side, n // columns * cell
        sheet.paste(Image.fromarray(image), (left, top))
        if labels is not None:
            pen.text((left + 3, top + side + 1), labels[n], fill="black")
        if landmarks is not None:
            for x, y in landmarks[n]:
                pen.ellipse([left + x - 1, top + y - 1, left + x + 1, top + y + 1], fill=(0, 255, 80))
    sheet.save(path)


def basic_sheet(path: str, size: int, people: int = 6, bank: str = "", landmarks: bool = False) -> None:
    """Writes one row per person, one column per basic emotion."""
    plan = Plan(size=size, bank=bank)
    index = np.arange(people * len(BASIC_RECIPES))
    who, column = index // len(BASIC_RECIPES), index % len(BASIC_RECIPES)
    if bank:
        _, picture = draw(plan, "test", index)
        contact_sheet(picture.image, None, path, landmarks=picture.landmarks if landmarks else None)
        return
    scene = sample_scene(plan.seed, size, index, who, np.array(BASIC_RECIPES)[column])
    picture = render(scene)
    captions = [
        f"{BASIC_NAMES[c]} {i:.2f}" if c else BASIC_NAMES[c] for c, i in zip(column, scene.intensity, strict=True)
    ]
    contact_sheet(picture.image, captions, path, landmarks=picture.landmarks if landmarks else None)


def compound_sheet(path: str, size: int, people: int = 2) -> None:
    """Writes the 22 categories, `people` of each."""
    category = np.repeat(np.arange(len(RECIPES)), people)
    index = np.arange(len(category))
    picture = render(sample_scene(0, size, index, index % people, category))
    contact_sheet(picture.image, [COMPOUND_NAMES[c] for c in category], path, columns=people * 4)


def clip_sheet(path: str, size: int, number: int = 6, frames: int = 12) -> None:
    """Writes one clip per row."""
    images, captions = [], []
    for n in range(number):
        subject, category = np.array([n]), np.array([BASIC_RECIPES[1 + n % 6]])
        clip = clips.draw_clip(sample_scene(0, size, np.array([n]), subject, category), frames, bank="test")
        images.extend(clip.picture.image)
        captions.extend(f"{COMPOUND_NAMES[category[0]]} {i:.2f}" for i in clip.intensity)
    contact_sheet(images, captions, path, columns=frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="picture to write")
    parser.add_argument("--kind", default="basic", choices=("basic", "compound", "clips", "occluded"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--landmarks", action="store_true", help="mark the 68 points")
    args = parser.parse_args()
    if args.kind == "compound":
        compound_sheet(args.path, args.size)
    elif args.kind == "clips":
        clip_sheet(args.path, args.size)
    else:
        bank = "test" if args.kind == "occluded" else ""
        basic_sheet(args.path, args.size, bank=bank, landmarks=args.landmarks)
    print(f"wrote {args.path}")


if __name__ == "__main__":
    main()
