"""Where tensors lie in the arena: apart, between guards, aligned; and how many slots there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpsmith.device.cuda.layout import ALIGN, GUARD, MOST_SLOTS, Layout, lay_out, slots_for
from warpsmith.records import DTYPE_BYTES, TensorSpec

MIB = 1 << 20
SHAPES = st.lists(st.integers(0, 40), max_size=3).map(tuple)
SPECS = st.lists(st.tuples(SHAPES, st.sampled_from(sorted(DTYPE_BYTES))), max_size=4)


def layout_of(*groups: list[tuple[tuple[int, ...], str]], slots: int = 3, base: int = 0) -> Layout:
    inputs, outputs, scratch = (
        [TensorSpec(f"{role}{number}", shape, dtype) for number, (shape, dtype) in enumerate(group)]
        for role, group in zip(("input", "output", "scratch"), groups)
    )
    return lay_out(inputs, outputs, scratch, slots, base)


@given(SPECS, SPECS, SPECS, st.integers(1, 5), st.integers(0, 5000))
def test_nothing_overlaps_and_guards_stand_between_all(
    inputs: list[tuple[tuple[int, ...], str]],
    outputs: list[tuple[tuple[int, ...], str]],
    scratch: list[tuple[tuple[int, ...], str]],
    slots: int,
    base: int,
) -> None:
    layout = layout_of(inputs, outputs, scratch, slots=slots, base=base)
    assert len(layout.places) == len(inputs) + len(outputs) + len(scratch)
    ends = [0]
    for slot in range(slots):
        for place in layout.places:
            start = layout.offset(place.spec.name, slot)
            assert start % ALIGN == 0, "a kernel may load 16 bytes at once, and cuMemAlloc aligns to 512"
            assert start - ends[-1] >= GUARD, "what runs over the end of one buffer must not reach the next"
            ends.append(start + place.spec.nbytes)
    assert layout.nbytes - ends[-1] >= GUARD
    assert layout.nbytes % 8 == 0, "memory is filled and summed in words of 64 bits"
    assert layout.base >= base and layout.base % ALIGN == layout.stride % ALIGN == 0


def test_a_tensor_is_found_by_name_and_by_role() -> None:
    layout = layout_of([((3,), "float32")], [((5,), "int8"), ((), "bool")], [((7,), "float64")], slots=4, base=700)
    assert [place.spec.name for place in layout.of("output")] == ["output0", "output1"]
    assert (
        layout.place("scratch0").role == "scratch" and layout.place("input0").end == layout.place("input0").start + 12
    )
    assert layout.offset("output1", 3) - layout.offset("output1", 0) == 3 * layout.stride
    with pytest.raises(KeyError):
        layout.place("nothing")


def test_another_base_moves_all_addresses_alike() -> None:
    near, far = (layout_of([((9,), "float32")], [((9,), "float32")], [], base=base) for base in (512, 1536))
    assert far.offset("output0", 2) - near.offset("output0", 2) == 1024


@given(st.integers(1, 1 << 36), st.integers(1 << 20, 1 << 28), st.integers(1 << 30, 1 << 38))
def test_slots_stay_within_a_quarter_of_the_memory(nbytes: int, l2: int, memory: int) -> None:
    slots = slots_for(nbytes, l2, memory)
    assert 1 <= slots <= MOST_SLOTS
    assert slots == 1 or slots * nbytes <= memory // 4


@pytest.mark.parametrize("mib", [3, 10, 24, 100, 600])
def test_slots_together_exceed_five_times_the_l2_where_memory_allows(mib: int) -> None:
    slots = slots_for(mib * MIB, 60 * MIB, 141 * 10**9)
    assert slots * mib * MIB > 5 * 60 * MIB, "a call would find its inputs in the L2"


def test_small_tasks_get_many_slots_but_not_endlessly_many() -> None:
    assert slots_for(16_000, 60 * MIB, 141 * 10**9) == MOST_SLOTS
    assert slots_for(0, 60 * MIB, 141 * 10**9) == MOST_SLOTS


def test_large_tasks_rotate_too_and_what_hardly_fits_gets_one_slot() -> None:
    assert slots_for(20 << 30, 60 * MIB, 141 * 10**9) == 1
    assert slots_for(10 << 30, 60 * MIB, 141 * 10**9) == 2, "a stale result shows only where a call has a neighbour"
    assert slots_for(400 * MIB, 60 * MIB, 141 * 10**9) == 4
    assert slots_for(80 << 30, 60 * MIB, 80 * 10**9) == 1
