"""A tiny MMI: folders of sessions with their XML files, and videos that are random pixels, or arrays in their place."""

from __future__ import annotations

import pathlib

import fake_pictures
import numpy as np

# (session, video, view, emotion or None, frames)
SESSIONS = (
    (1, "S001-001", 0, 4, 5),
    (2, "S001-002", 2, 1, 3),
    (17, "S002-005", 0, 6, 1),
    (18, "S002-006", 1, 2, 2),  # a profile
    (101, "S001-100", 0, None, 2),  # action units only
    (1767, "S050-001", 0, 9, 2),  # none of the six
    (1800, "S054-003", 0, 2, 4),
)
LABELLED = {"S001-001": 4, "S001-002": 1, "S002-005": 6, "S054-003": 2}
RATE = 25
SIZE = (72, 58)  # width and height, a tenth of the real ones


def frames(name: str, count: int) -> np.ndarray:
    return np.stack([fake_pictures.pixels(f"{name}{i}", *SIZE) for i in range(count)])


def make(folder: pathlib.Path, write=None, some=SESSIONS) -> pathlib.Path:
    """Writes a download below `folder` and returns its Sessions/; `write` as `write_array`."""
    root = folder / "mmi-facial-expression-database_download_2019-04-27_05_06_23" / "Sessions"
    for number, name, view, emotion, count in some:
        session = root / str(number)
        session.mkdir(parents=True)
        (write or write_array)(session / f"{name}.avi", frames(name, count))
        annotation = f"{name}.xml" if emotion is not None else f"{name}-oao_aucs.xml"
        (session / "session.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<session sessionId="{number}"><subject id="{name[1:4]}" />'
            f'<track type="Video" view="{view}" filename="{name}.avi"><annotation filename="{annotation}" /></track>'
            "</session>\n"
        )
        if emotion is None:
            (session / annotation).write_text('<AnnotationFile><ActionUnit Number="12" /></AnnotationFile>')
        else:
            (session / annotation).write_text(
                '<AnnotationFile><Metatag Name="FACS Coder" Value="x" />'
                f'<Metatag Name="Emotion" Value="{emotion}" /></AnnotationFile>\n'
            )
        (session / "Thumbs.db").write_bytes(b"x")
    fake_pictures.write(root / "55" / "S003-001.jpg", *SIZE)
    (root / "55" / "session.xml").write_text("<session />")
    (root / ".DS_Store").write_bytes(b"x")
    return root


def write_array(path: pathlib.Path, images: np.ndarray) -> None:
    """Writes frames where `read_array` finds them."""
    with open(path, "wb") as file:
        np.save(file, images)


def read_array(path, *, every=1, fps=None, on_damage=None):
    """Stands for `fer_jax.faces.video.read`."""
    images = np.load(path)
    return ((i / RATE, image) for i, image in enumerate(images) if i % every == 0)


def write_video(path: pathlib.Path, images: np.ndarray) -> None:
    """Writes a real video, by PyAV."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1], "yuvj420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
