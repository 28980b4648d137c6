"""The pyramid's section of the report: every size of a few faces, in one brightness per row."""

import numpy as np

from fer_jax.report import pyramid
from fer_jax.report.inside import inside
from fer_jax.report.pictures import Book
from fer_jax.report.shown import Shown

RNG = np.random.default_rng(0)


def shown(count=14, **more):
    sizes = {"image": 16, "half": 8, "bicubic": 16, "super_resolved": 16}
    values = {name: RNG.normal(size=(count, side, side, 3)) for name, side in sizes.items()}
    labels = np.arange(count) % 2
    return Shown(classes=("fear", "anger"), labels=labels, logits=None, values=values | more, fields={})


def test_all_sizes_are_drawn_where_the_method_has_them(tmp_path):
    html = inside(Book(tmp_path), shown(aligned=RNG.normal(size=(14, 16, 16, 3))))
    assert "aligned" in html
    assert "super-resolved" in html
    assert (tmp_path / "chart_pyramid.png").stat().st_size > 10_000
    assert "aligned" not in inside(Book(tmp_path), shown())
    assert inside(Book(tmp_path), Shown(("a",), np.zeros(1, int), None, {"half": np.zeros((1, 4, 4, 3))}, {})) == ""


def test_a_row_has_the_brightness_of_its_input():
    image = np.linspace(-1, 1, 16 * 16 * 3).reshape(16, 16, 3)
    figure = pyramid.grid([[image, 3 * image]], ["fear"], ["input", "brighter"])
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    np.testing.assert_allclose(first, (image + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(second, np.clip((3 * image + 1) / 2, 0, 1), atol=1e-6)
