"""Progressive resolution: training begins on smaller images, whose steps cost less, and ends at the full size.

The idea is that of the fastest recipes on ImageNet (Howard's, DAWNBench 2018; Tan and Le, arXiv 2104.00298).

    config.data.resolutions = ((0.5, 32),)   # the first half of the run at 32 pixels, the rest at data.image_size
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from fer_jax.errors import UserError

SMALLEST = 8  # pixels


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of the run: its steps end with step `end` of the whole, and see images of `size` pixels."""

    end: int
    size: int


def stages(config: Any, total_steps: int) -> tuple[Stage, ...]:
    """Returns the stages of a run in order; the last one has the size at which the model is evaluated.

    Raises:
        UserError: for shares that leave nothing to the full size, sizes that are none, and too few steps.
    """
    given, full = config.data.resolutions, config.data.image_size
    try:
        shares = [(float(share), int(size)) for share, size in given]
        if any(size != asked for (_, size), (_, asked) in zip(shares, given, strict=True)):
            raise ValueError
    except (OverflowError, TypeError, ValueError) as error:
        raise UserError(f"config.data.resolutions={given!r}: give ((share of the run, pixels), ...)") from error
    if not all(share > 0 for share, _ in shares) or sum(share for share, _ in shares) >= 1:
        raise UserError(
            f"config.data.resolutions={given!r}: the shares must be above 0 and add up to less than 1; the rest of the "
            f"run is at config.data.image_size={full}"
        )
    if any(not SMALLEST <= size <= full for _, size in shares):
        raise UserError(f"config.data.resolutions={given!r}: give {SMALLEST} to config.data.image_size={full} pixels")
    ends = [round(sum(share for share, _ in shares[: number + 1]) * total_steps) for number in range(len(shares))]
    made = [Stage(end, size) for end, (_, size) in zip([*ends, total_steps], [*shares, (0.0, full)], strict=True)]
    if any(a.end >= b.end for a, b in zip([Stage(0, 0), *made], made, strict=False)):
        raise UserError(f"config.data.resolutions={given!r}: {total_steps} steps are too few for {len(made)} sizes")
    return tuple(made)


def size_at(of_run: Sequence[Stage], step: int) -> int:
    """Returns the size of the images that the step after `step` sees."""
    return next((stage.size for stage in of_run if step < stage.end), of_run[-1].size)
