"""Taking turns, names of machines, and what a profile's events become."""

import functools
import itertools
import multiprocessing
import os

import pytest

from benchmarks import machine, profile_step, turns
from benchmarks.apart import apart


def test_contestants_take_turns_after_a_warm_up():
    order = []
    contestants = {"a": lambda: order.append("a"), "b": lambda: order.append("b"), "slow": lambda: order.append("s")}
    seconds = turns.take_turns(contestants, 3, few={"slow": 1})
    assert "".join(order) == "absabsabab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3, "slow": 1}


def test_a_loss_that_is_not_finite_stops_the_race():
    with pytest.raises(FloatingPointError, match="ours"):
        turns.take_turns({"ours": lambda: float("nan")}, 1)


def test_a_device_names_its_file():
    assert machine.file_name("AMD EPYC, 2 cores") == "amd_epyc_2_cores"
    assert machine.file_name("NVIDIA H100 80GB HBM3") == "nvidia_h100_80gb_hbm3"


def counting(start):
    """A contestant that counts its turns."""
    counted = itertools.count(start)
    return lambda: float(next(counted))


def broken():
    raise RuntimeError("no C++ compiler\nand a long trace")


def dying():
    turns = counting(0)
    return lambda: turns() < 1 or os._exit(9)


@pytest.mark.slow
def test_contestants_have_processes_of_their_own():
    five, seven = functools.partial(counting, 5), functools.partial(counting, 7)
    with apart({"a": five, "broken": broken, "b": seven, "dying": dying}) as (race, ready, failed):
        assert failed == {"broken": "RuntimeError: no C++ compiler"}
        assert list(race) == list(ready) == ["a", "b", "dying"]
        assert [race["a"](), race["b"](), race["a"]()] == [6, 8, 7]  # the first turn was the warm-up
        for _ in range(2):  # while it dies, and when it has been dead for a while
            with pytest.raises(RuntimeError, match="dying: the process of dying has ended"):
                race["dying"]()
        assert race["b"]() == 9
        assert len(multiprocessing.active_children()) >= 2
    assert not multiprocessing.active_children()


def test_without_a_contestant_that_is_needed_there_is_no_race():
    with pytest.raises(RuntimeError, match="broken: RuntimeError: no C"), apart({"broken": broken}, needed=["broken"]):
        pytest.fail("it began")
    assert not multiprocessing.active_children()


def test_operations_in_flight_share_the_time():
    spent, idle = profile_step.shared_time([("a", 0, 10), ("b", 4, 8), ("c", 15, 20)])
    assert spent == {"a": 4 + 2 + 2, "b": 2, "c": 5}
    assert idle == 5


class Event:
    def __init__(self, name, start, duration, **stats):
        self.name, self.start_ns, self.duration_ns, self.stats = name, start, duration, stats.items()


def test_an_operation_ends_where_its_threads_end():
    events = [
        Event("dot.1", 0, 3, hlo_op="dot.1", hlo_module="jit_step", _p=7),
        Event("end: dot.1", 12, 1, _c=7),
        Event("add", 3, 4, hlo_op="add", hlo_module="jit_step", _p=8),
        Event("call.2", 0, 20, hlo_op="call.2", hlo_module="jit_step", _p=9),
        Event("other", 0, 5, hlo_op="other", hlo_module="jit_init", _p=10),
        Event("ThreadpoolListener::Record", 0, 5),
    ]
    assert profile_step.intervals(events, "jit_step") == [("dot.1", 0, 12), ("add", 3, 7)]


def test_what_the_compiled_program_says_of_an_operation():
    text = (
        "HloModule jit_step\n"
        '  %conv.1 = f32[2,3]{1,0} convolution(%a, %b), metadata={op_name="jit(step)/trunk/conv" stack_frame_id=3}\n'
        '  ROOT %call = (f32[2]{0}, s32[]) custom-call(%conv.1), custom_call_target="TopK"\n'
    )
    found = profile_step.instructions(text)
    assert found["conv.1"] == {"opcode": "convolution", "type": "f32[2,3]", "source": "jit(step)/trunk/conv"}
    assert found["call"] == {"opcode": "custom-call TopK", "type": "(f32[2], s32[])", "source": ""}
    assert profile_step.shortened(found["conv.1"]["source"]) == "trunk/conv"
