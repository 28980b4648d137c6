"""What a step sends to other devices."""

import pytest

from benchmarks.scaling import System, efficiency, sums

PROGRAM = """
  %all-reduce.1 = f32[64]{0} all-reduce(%a), channel_id=1, to_apply=%add
  %all-reduce.2 = (f32[3,3,64,128]{3,2,1,0}, /*index=1*/bf16[7]{0}, s32[]) all-reduce(%b, %c, %d), to_apply=%add
  %sum = f32[64]{0} add(%all-reduce.1, %x)
"""


def test_all_reduces_are_counted_in_a_compiled_program():
    assert sums(PROGRAM) == (2, 4 * 64 + 4 * 9 * 64 * 128 + 2 * 7 + 4)


def test_efficiency_by_hand():
    """A ring of 4 sends 1.5 x 10 MB at 1 GB/s: 15 ms, and 5 sums wait 1 ms each; the step takes 20 ms."""
    assert efficiency(System(4, 1e9, 1e-3), 5, 10_000_000, 0.02) == pytest.approx((0.5, 2 / 3))
