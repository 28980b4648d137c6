"""Frame weights in the report: what is drawn is what was measured."""

import numpy as np
import pytest

from fer_jax.report import clips, style
from fer_jax.report.inside import inside
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown


def shown(lengths, truth=True, seed=0):
    rng = np.random.default_rng(seed)
    length = np.array(lengths)
    total = int(length.sum())
    mask = rng.random(total) < 0.8
    weights = np.where(mask, rng.random(total), 0)
    fields = {
        "length": length,
        "frames": rng.integers(0, 256, (total, 24, 24, 3), np.uint8),
        "frame_mask": mask,
    }
    if truth:
        fields["frame_intensity"] = rng.random(total).astype(np.float32) * mask
    n = len(length)
    return Shown(
        classes=("neutral", "happy"),
        labels=np.arange(n) % 2,
        logits=rng.normal(size=(n, 2)).astype(np.float32),
        values={"frame_weights": weights},
        fields=fields,
    )


def bars(figure):
    """The bars of a strip: their places and heights."""
    below = figure.axes[1]
    container = below.containers[0]
    return [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in container]


@pytest.mark.parametrize("count", [1, 5, 16])
def test_bars_stand_under_faces_and_nowhere_else(count):
    rng = np.random.default_rng(count)
    mask = np.arange(count) % 4 != 3
    share = np.where(mask, 2 * rng.random(count), 0)
    frames = rng.integers(0, 256, (count, 20, 20, 3), np.uint8)
    intensity = rng.random(count)
    figure = clips.strip(frames, share, mask, np.arange(1, count + 1), intensity)
    places, heights = zip(*bars(figure), strict=True)
    np.testing.assert_allclose(places, np.flatnonzero(mask), atol=1e-9)
    np.testing.assert_allclose(heights, share[mask])
    line = figure.axes[2].lines[0].get_ydata()
    np.testing.assert_allclose(line[mask], intensity[mask])
    assert np.isnan(line[~mask]).all()
    assert len(figure.axes[0].images) == count
    width, height = figure.axes[0].bbox.width / count, figure.axes[0].bbox.height
    assert width == pytest.approx(height, rel=0.01)  # frames stay square
    assert style.to_png(figure).startswith(b"\x89PNG")


def test_without_the_truth_there_is_no_line():
    figure = clips.strip(np.zeros((3, 8, 8, 1), np.uint8), np.ones(3), np.ones(3, bool), np.arange(1, 4), None)
    assert len(figure.axes) == 2


def test_the_section_says_what_it_shows(tmp_path):
    page = inside(Book(tmp_path), shown([5, 1, 0, 2_000]))
    assert "What it looks at in a clip" in page
    assert page.count("<figure") == 3  # the empty clip has nothing to show
    assert "16 of 2,000 frames" in page
    assert "the truth that the network never saw" in page
    assert len(list(tmp_path.glob("chart_clip_*.png"))) == 3
    assert "the truth" not in inside(Book(tmp_path), shown([3, 3], truth=False))


def test_a_fair_share_is_one_whatever_the_length():
    data = shown([4, 8])
    data.fields["frame_mask"][:] = True
    data.values["frame_weights"][:] = np.concatenate([np.full(4, 0.25), np.full(8, 0.125)])
    drawn = []
    original = clips.strip

    def remember(frames, share, mask, numbers, intensity):
        drawn.append(share)
        return original(frames, share, mask, numbers, intensity)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "strip", remember)

        class Nowhere:
            def chart(self, name, figure, alt):
                return ""

        clips.frame_weights(Nowhere(), data)  # type: ignore[arg-type]
    for share in drawn:
        np.testing.assert_allclose(share, 1.0)
