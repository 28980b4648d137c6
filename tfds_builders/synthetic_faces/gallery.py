"""A sheet of synthetic faces: a row for each person, a column for each basic emotion.

python -m tfds_builders.synthetic_faces.gallery faces.png [--size 160]
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image, ImageDraw

from tfds_builders.synthetic_faces.examples import BASIC_NAMES
from tfds_builders.synthetic_faces.expressions import BASIC_RECIPES
from tfds_builders.synthetic_faces.renderer import render
from tfds_builders.synthetic_faces.scene import sample_scene

PEOPLE = 6
CAPTION = 14  # pixels below each face


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", help="picture to write")
    parser.add_argument("--size", type=int, default=128, help="side of a face in pixels (default %(default)s)")
    args = parser.parse_args()
    person, emotion = np.divmod(np.arange(PEOPLE * len(BASIC_NAMES)), len(BASIC_NAMES))
    scene = sample_scene(0, args.size, np.arange(len(person)), person, np.array(BASIC_RECIPES)[emotion])
    sheet = Image.new("RGB", (len(BASIC_NAMES) * args.size, PEOPLE * (args.size + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for image, row, column, intensity in zip(render(scene).image, person, emotion, scene.intensity, strict=True):
        left, top = int(column) * args.size, int(row) * (args.size + CAPTION)
        sheet.paste(Image.fromarray(image), (left, top))
        caption = f"{BASIC_NAMES[column]} {intensity:.2f}" if column else BASIC_NAMES[column]
        pen.text((left + 3, top + args.size + 1), caption, fill="black")
    sheet.save(args.path)
    print(f"wrote {args.path}")


if __name__ == "__main__":
    main()
