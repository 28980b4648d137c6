"""Scores of explanation maps, as plain functions on arrays.

What a picture shows of an expression is known where its action units and landmarks are: `unit_regions`. Each score is
to be compared with that of random maps, and of a network with random weights: an explanation should score worse for a
network that has learned nothing (Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Faces: TypeAlias = UInt8[np.ndarray, "N H W K"]
Maps: TypeAlias = Float[np.ndarray, "N H W"]
Regions: TypeAlias = Bool[np.ndarray, "N H W"]
PerMap: TypeAlias = Float[np.ndarray, " N"]
Probability: TypeAlias = Callable[[np.ndarray], np.ndarray]  # of faces [N, H, W, K], each of its own class: [N]

_BOTH_EYES = (tuple(range(36, 42)), tuple(range(42, 48)))
_MOUTH = (tuple(range(48, 60)),)
# For each action unit the groups of landmarks (iBUG, from 0) around which it moves or folds the skin; in the order of
# the field `action_units`.
UNITS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((19, 20, 21, 22, 23, 24),),
    2: ((17, 18, 19, 20), (23, 24, 25, 26)),
    4: ((17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27),),
    5: _BOTH_EYES,
    6: _BOTH_EYES,
    7: _BOTH_EYES,
    9: ((21, 22, 27, 31, 35),),
    10: ((31, 35, 54, 51, 48),),
    11: ((31, 48), (35, 54)),
    12: ((31, 48), (35, 54), *_MOUTH),
    15: _MOUTH,
    17: ((48, 54, 55, 57, 59, 7, 8, 9),),
    20: _MOUTH,
    23: _MOUTH,
    24: _MOUTH,
    25: _MOUTH,
    26: ((48, 51, 54, 7, 8, 9),),
}
REACH = 0.10  # of a region beyond its landmarks, as a share of the distance between the outer corners of the eyes
INSERTED = 8  # steps of insertion and deletion
BLUR = 1 / 8  # standard deviation of the blur that insertion begins with, as a share of the picture's side
SHIFT, ANGLE, LIGHT = 1 / 16, 10.0, 0.6  # of the side; degrees; what is left of the light


def unit_regions(
    units: Float[np.ndarray, "N A"], landmarks: Float[np.ndarray, "N 68 2"], shape: tuple[int, int]
) -> Maps:
    """Returns where in pictures of this shape (H, W) action units act, with what intensity (0 .. 1), else 0.

    The region of a unit is the convex hull of each of its groups of landmarks (`UNITS`), `REACH` wider; where units
    overlap, the stronger one counts. On synthetic faces it holds 91 % of the squared difference between a face and the
    same one with every unit at rest, on a fifth of the picture.
    """
    regions = np.zeros((len(units), *shape), np.float32)
    for region, intensities, points in zip(regions, units, landmarks, strict=True):
        reach = REACH * float(np.linalg.norm(points[36] - points[45]))
        for groups, intensity in zip(UNITS.values(), intensities.tolist(), strict=True):
            for group in groups if intensity > 0 else ():
                hull = cv2.convexHull(np.round(points[list(group)] * 16).astype(np.int32))
                covered = np.zeros(shape, np.uint8)
                cv2.fillConvexPoly(covered, hull, 1, lineType=cv2.LINE_8, shift=4)
                cv2.polylines(covered, [hull], True, 1, max(1, round(2 * reach)), lineType=cv2.LINE_8, shift=4)
                np.maximum(region, intensity * covered, out=region)
    return regions


def pointing_game(maps: Maps, regions: Regions) -> PerMap:
    """Whether the largest value lies in the region: 1 or 0; of several places the share that does.

    Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, without their tolerance of 15 pixels.
    """
    top = maps == maps.max(axis=(1, 2), keepdims=True)
    return (top & regions).sum(axis=(1, 2)) / top.sum(axis=(1, 2))


def relevance_mass(maps: Maps, regions: Regions) -> PerMap:
    """Relevance mass accuracy: sum over the region of R / sum over the picture of R, R = max(map, 0); 0 where R is 0.

    Arras, Osman and Samek, "CLEVR-XAI", Information Fusion 81, 2022, equation 4.
    """
    positive = np.maximum(maps, 0)
    return (positive * regions).sum(axis=(1, 2)) / np.maximum(positive.sum(axis=(1, 2)), 1e-12)


def relevance_rank(maps: Maps, regions: Regions) -> PerMap:
    """Relevance rank accuracy: |top K of the map and the region| / K, K the number of pixels of the region.

    Arras, Osman and Samek 2022, equation 5. Of pixels equal to the K-th largest the expected number counts.
    """
    found = np.zeros(len(maps))
    for n, (values, region) in enumerate(zip(maps.reshape(len(maps), -1), regions.reshape(len(maps), -1), strict=True)):
        size = int(region.sum())
        least = np.partition(values, -size)[-size] if size else np.inf
        above, equal = values > least, values == least
        drawn = (size - above.sum()) / max(int(equal.sum()), 1)
        found[n] = ((above & region).sum() + drawn * (equal & region).sum()) / max(size, 1)
    return found


def region_cosine(maps: Maps, regions: Maps) -> PerMap:
    """Cosine of max(map, 0) with the intensities of a region, over all pixels; 0 where one of them is 0."""
    positive = np.maximum(maps, 0)
    lengths = [np.sqrt((values.astype(np.float64) ** 2).sum(axis=(1, 2))) for values in (positive, regions)]
    return (positive * regions).sum(axis=(1, 2)) / np.maximum(lengths[0] * lengths[1], 1e-12)


def perturbation_auc(probability: Probability, begin: Faces, end: Faces, maps: Maps, steps: int = INSERTED) -> PerMap:
    """Area under the curve of the probability [N] of a class while pictures turn from `begin` to `end`.

    In each step the same number of pixels changes, those of the largest relevance first, ties in a fixed random order;
    the area is by the trapezoidal rule over the share of changed pixels.
    """
    ranks = _ranks(maps)
    pixels = ranks[0].size
    curve = []
    for step in range(steps + 1):
        changed = ranks < round(step * pixels / steps)
        curve.append(probability(np.where(changed[..., None], end, begin)))
    curve = np.stack(curve).astype(np.float64)
    return (curve[1:] + curve[:-1]).mean(axis=0) / 2


def insertion(probability: Probability, faces: Faces, maps: Maps) -> PerMap:
    """Insertion: pixels return into a blurred picture, the most relevant first; higher is better.

    Petsiuk, Das and Saenko, "RISE", BMVC 2018. Pictures that are partly blurred or covered are unlike any that the
    network was trained on: what it says of them need not be what it would say if the place did not matter.
    """
    blurred = [cv2.GaussianBlur(face, (0, 0), BLUR * len(face)).reshape(face.shape) for face in faces]
    return perturbation_auc(probability, np.stack(blurred), faces, maps)


def deletion(probability: Probability, faces: Faces, maps: Maps) -> PerMap:
    """Deletion: the most relevant pixels first turn into the mean color of the face; lower is better.

    Source and caveat are those of `insertion`.
    """
    mean = np.round(faces.mean(axis=(1, 2), keepdims=True)).astype(np.uint8)
    return perturbation_auc(probability, faces, np.broadcast_to(mean, faces.shape), maps)


def transforms(shape: tuple[int, int]) -> dict[str, Float[np.ndarray, "2 3"]]:
    """Returns the transforms that maps should follow: where each moves a pixel (x, y, 1) of a picture (H, W).

    'light' moves nothing, but makes the picture darker (see `transformed`).
    """
    height, width = shape
    flip = np.array([[-1, 0, width - 1], [0, 1, 0]], np.float64)
    shift = np.array([[1, 0, round(SHIFT * width)], [0, 1, round(SHIFT * height)]], np.float64)
    rotation = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), ANGLE, 1.0)
    return {"flip": flip, "shift": shift, "rotation": rotation, "light": np.eye(2, 3)}


def transformed(faces: Faces, name: str) -> Faces:
    """Returns faces after one of `transforms`; what comes in from outside repeats the edge."""
    if name == "light":
        return np.round(LIGHT * faces).astype(np.uint8)
    matrix, (height, width) = transforms(faces.shape[1:3])[name], faces.shape[1:3]
    moved = [cv2.warpAffine(face, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for face in faces]
    return np.stack(moved).reshape(faces.shape)


def consistency(maps: Maps, after: Maps, name: str, seen: Bool[np.ndarray, "H W"] | None = None) -> PerMap:
    """Correlation of maps with those of the transformed pictures, transformed back, over the pixels that both have.

    1 where the map follows its picture; 0 where one of the two is constant. `seen` are the pixels that the network
    sees, all by default.
    """
    height, width = maps.shape[1:]
    matrix = transforms((height, width))[name]

    def back(image: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    inside = np.ones((height, width), bool) if seen is None else seen
    both = inside & (back(inside.astype(np.float32)) > 0.999)
    before = maps[:, both].astype(np.float64)
    behind = np.stack([back(np.ascontiguousarray(shown, np.float32))[both] for shown in after]).astype(np.float64)
    before, behind = (values - values.mean(axis=1, keepdims=True) for values in (before, behind))
    lengths = np.sqrt((before**2).sum(axis=1) * (behind**2).sum(axis=1))
    return (before * behind).sum(axis=1) / np.maximum(lengths, 1e-12)


def region_scores(maps: Maps, regions: Maps) -> dict[str, float]:
    """Returns the mean of the scores against regions of action units, and the regions' share of the picture.

    Pictures in which no unit acts are left out.
    """
    acting = regions.any(axis=(1, 2))
    maps, regions = maps[acting], regions[acting]
    means = {f.__name__: float(f(maps, regions > 0).mean()) for f in (pointing_game, relevance_mass, relevance_rank)}
    return means | {"region_cosine": float(region_cosine(maps, regions).mean()), "area": float((regions > 0).mean())}


def _ranks(maps: Maps) -> Int[np.ndarray, "N H W"]:
    """The place of each pixel in the order of falling relevance, from 0."""
    flat = maps.reshape(len(maps), -1)
    ties = np.random.default_rng(0).permutation(flat.shape[1])
    order = np.stack([np.lexsort((ties, -values)) for values in flat])
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return ranks.reshape(maps.shape)
