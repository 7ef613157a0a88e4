"""The arena on the CPU, copied as bytes: what goes in comes out, and nothing changes unseen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.device.fake_runner import FakeRunner
from warpsmith.device.cuda import arena as arena_module
from warpsmith.device.cuda.arena import Arena
from warpsmith.device.cuda.layout import GUARD, lay_out
from warpsmith.records import DTYPE_BYTES, TensorSpec

FLOATS = ("float16", "bfloat16", "float32", "float64")
SHAPES: tuple[tuple[int, ...], ...] = ((3, 5, 7), (), (1,), (0, 4), (4, 0), (2, 1, 1, 3))
SMALL = (TensorSpec("x", (5,), "float32"), TensorSpec("y", (3,), "int8"))


def arena_of(
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
    scratch: Sequence[TensorSpec] = (),
    *,
    slots: int = 3,
    base: int = 1024,
) -> tuple[Arena, FakeRunner]:
    layout = lay_out(inputs, outputs, scratch, slots, base)
    runner = FakeRunner(layout)
    return Arena(layout, runner, "cpu", share=False), runner  # type: ignore[arg-type]


def filled(spec: TensorSpec, seed: int) -> torch.Tensor:
    dtype = getattr(torch, spec.dtype)
    values = torch.randint(0, 100, spec.shape, generator=torch.Generator().manual_seed(seed))
    return values % 2 == 0 if dtype is torch.bool else values.to(dtype)


def every_spec() -> list[TensorSpec]:
    return [
        TensorSpec(f"{dtype}_{number}", shape, dtype)
        for dtype in sorted(DTYPE_BYTES)
        for number, shape in enumerate(SHAPES)
    ]


# ----------------------------------------------------------------------------------------------------- in and out again


def test_arguments_of_every_dtype_and_shape_come_back_from_the_slot_where_they_were_put() -> None:
    specs = every_spec()
    arena, _ = arena_of(specs)
    arena.fill(1)
    put = [{spec.name: filled(spec, slot) for spec in specs} for slot in range(3)]
    for slot, arguments in enumerate(put):
        arena.put(slot, arguments)
    for spec in specs:
        seen = arena.tensor(spec.name)
        assert seen.shape == (3, *spec.shape) and str(seen.dtype) == f"torch.{spec.dtype}"
        assert all(torch.equal(seen[slot], put[slot][spec.name]) for slot in range(3)), spec


def test_a_transposed_argument_is_put_in_row_major_order() -> None:
    arena, _ = arena_of([TensorSpec("x", (4, 3), "float32")])
    x = torch.arange(12.0).reshape(3, 4).t()
    arena.put(1, {"x": x})
    assert torch.equal(arena.tensor("x")[1], x) and arena.differs(1, {"x": x}) == ()


def test_one_element_of_a_strided_tensor_can_be_put() -> None:
    arena, _ = arena_of([TensorSpec("x", (1,), "float32")])
    x = torch.arange(12.0)[3::100]
    assert x.stride() == (100,)
    arena.put(0, {"x": x})
    assert torch.equal(arena.tensor("x")[0], x)


def test_each_slot_gets_the_member_of_the_pool_that_it_is_given() -> None:
    specs = every_spec()
    arena, _ = arena_of(specs, slots=4)
    pool = {spec.name: torch.stack([filled(spec, member) for member in range(3)]) for spec in specs}
    members = torch.tensor([2, 0, 2, 1])
    arena.put_all(pool, members)
    for spec in specs:
        assert torch.equal(arena.tensor(spec.name), pool[spec.name][members]), spec


def test_buffers_that_are_too_large_to_gather_at_once_get_their_members_too() -> None:
    spec = TensorSpec("x", ((16 << 20) + 1,), "uint8")
    arena, _ = arena_of([spec], slots=2)
    pool = {"x": torch.randint(0, 256, (2, spec.nbytes), dtype=torch.uint8)}
    members = torch.tensor([1, 0])
    arena.put_all(pool, members)
    assert torch.equal(arena.tensor("x"), pool["x"].flip(0)) and arena.changed("input", pool, members) == ()
    arena.tensor("x")[1, -1] ^= 1
    assert arena.changed("input", pool, members) == ("x",)


def test_what_is_pushed_the_runner_sees_and_what_it_writes_is_pulled() -> None:
    arena, runner = arena_of(SMALL, [TensorSpec("out", (5,), "float32")])
    assert not arena.mapped and len(runner.memory) == arena.layout.nbytes == arena.capacity
    arena.fill(3)
    arena.put(2, {"x": torch.arange(5.0), "y": torch.tensor([1, 2, 3], dtype=torch.int8)})
    arena.push()
    assert bytes(arena.memory.tolist()) == bytes(runner.memory)
    at = arena.layout.offset("out", 2)
    runner.memory[at : at + 4] = b"\0\0\x80\x3f"
    assert arena.tensor("out")[2, 0] != 1.0
    arena.pull()
    assert arena.tensor("out")[2, 0] == 1.0 and bytes(arena.memory.tolist()) == bytes(runner.memory)


def test_memory_larger_than_one_message_is_copied_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_module, "_CHUNK", 4096)
    arena, runner = arena_of(SMALL, [TensorSpec("out", (5000,), "uint8")], base=512)
    assert arena.layout.nbytes % 4096, "the last piece is a short one"
    arena.fill(3)
    arena.push()
    assert runner.asked.count("write") > 3 and bytes(arena.memory.tolist()) == bytes(runner.memory)
    runner.memory[:] = bytes(reversed(runner.memory))
    arena.pull()
    assert bytes(arena.memory.tolist()) == bytes(runner.memory)


def test_where_every_buffer_stands_by_itself_inputs_are_pushed_and_outputs_pulled() -> None:
    outputs = [TensorSpec("out", (5,), "float32"), TensorSpec("none", (0,), "float32")]
    layout = lay_out(SMALL, outputs, [TensorSpec("s", (5,), "float32")], 1, 512)
    runner = FakeRunner(layout)
    arena = Arena(layout, runner, "cpu", share=False, spread=True)  # type: ignore[arg-type]
    arena.fill(1)
    arena.put(0, {"x": torch.arange(5.0), "y": torch.tensor([1, 2, 3], dtype=torch.int8)})
    arena.push()
    at = layout.offset("out", 0)
    assert not any(runner.memory[at : at + 20]), "what nobody wrote must look unwritten to a sanitizer"
    runner.memory[at : at + 4] = b"\0\0\x80\x3f"
    arena.pull()
    assert arena.outputs(0)["out"].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert runner.asked == ["arena", "write", "write", "read"]


def test_outputs_of_a_slot_stay_as_they_are_when_the_slot_is_used_again() -> None:
    specs = [TensorSpec("out", (5,), "float32"), TensorSpec("flag", (), "bool"), TensorSpec("none", (0,), "int64")]
    arena, _ = arena_of([], specs)
    arena.tensor("out")[1] = 2.0
    outputs = arena.outputs(1)
    arena.fill(9)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {"out": (5,), "flag": (), "none": (0,)}
    assert torch.equal(outputs["out"], torch.full((5,), 2.0))


def test_the_same_memory_serves_a_smaller_layout() -> None:
    arena, runner = arena_of(SMALL, slots=3)
    smaller = lay_out([TensorSpec("z", (2,), "float64")], [], [], 2, 512)
    arena.lay_out(smaller)
    arena.fill(1)
    arena.put(1, {"z": torch.ones(2, dtype=torch.float64)})
    arena.push()
    at = smaller.offset("z", 1)
    assert bytes(runner.memory[at : at + 16]) == bytes(arena.memory[at : at + 16].tolist())
    assert len(arena.memory) == smaller.nbytes and arena.capacity == len(runner.memory)
    last = arena.memory[-1:]
    before = arena.fingerprint(0)
    last ^= 1
    assert arena.fingerprint(0) != before, "the guard behind the last slot is that of the new layout"


# -------------------------------------------------------------------------------------------------------------- filling


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_nobody_writes_and_what_lies_between_is_nan_in_every_floating_type(dtype: str) -> None:
    # 7 elements: guards begin where a wider word would be cut.
    arena, _ = arena_of(
        [TensorSpec("x", (7,), dtype)], [TensorSpec("out", (7,), dtype)], [TensorSpec("s", (7,), dtype)]
    )
    arena.fill(5)
    assert torch.isnan(arena.memory.view(getattr(torch, dtype))).all()
    arena.put(1, {"x": torch.zeros(7, dtype=getattr(torch, dtype))})
    raw = arena.memory.view(getattr(torch, dtype))
    at = arena.layout.offset("x", 1) // DTYPE_BYTES[dtype]
    assert torch.isnan(raw[at - 1]) and torch.isnan(raw[at + 7]), "reading over the end must change the result"
    assert (raw == 0).sum() == 7


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_another_seed_gives_another_pattern_and_the_same_seed_the_same(dtype: str) -> None:
    patterns = []
    for seed in (1, 2, 1):
        arena, _ = arena_of([], [TensorSpec("out", (64,), dtype)], [TensorSpec("s", (64,), dtype)])
        arena.fill(seed)
        patterns.append(arena.memory.clone())
    assert torch.equal(patterns[0], patterns[2])
    assert not torch.equal(patterns[0], patterns[1])
    for name in ("out", "s"):
        start, end = arena.layout.offset(name, 0), arena.layout.offset(name, 0) + 64 * DTYPE_BYTES[dtype]
        assert not torch.equal(patterns[0][start:end], patterns[1][start:end])


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8"])
def test_unwritten_integers_are_random_in_every_bit(dtype: str) -> None:
    arena, _ = arena_of([], [TensorSpec("out", (2048 // DTYPE_BYTES[dtype],), dtype)])
    arena.fill(5)
    raw = arena.raw(arena.layout.place("out")).reshape(-1, DTYPE_BYTES[dtype])
    for byte in range(DTYPE_BYTES[dtype]):
        for bit in range(8):
            share = float((raw[:, byte] >> bit & 1).double().mean())
            assert 0.3 < share < 0.7, f"bit {bit} of byte {byte} is always the same"


def test_unwritten_booleans_are_as_often_false_as_true() -> None:
    arena, _ = arena_of([], [TensorSpec("out", (4096,), "bool")])
    arena.fill(5)
    assert 0.4 < float(arena.tensor("out").double().mean()) < 0.6


def test_filling_one_slot_leaves_all_others_alone() -> None:
    arena, _ = arena_of(SMALL, [TensorSpec("out", (50,), "int32")], slots=4)
    arena.fill(1)
    before = arena.memory.clone()
    arena.fill(2, slice(2, 3))
    low = arena.layout.base + 2 * arena.layout.stride
    high = low + arena.layout.stride
    assert torch.equal(arena.memory[:low], before[:low]) and torch.equal(arena.memory[high:], before[high:])
    same = (arena.memory[low:high] == before[low:high]).double().mean()
    assert same < 0.6, "in a slot nothing but the bits that make NaNs stays"


# -------------------------------------------------------------------------------------------------------------- looking


def test_a_write_just_outside_of_any_buffer_hits_a_guard_that_says_beside_which() -> None:
    odd = TensorSpec("s", (3,), "uint8")
    arena, _ = arena_of(SMALL, [TensorSpec("out", (7,), "float16")], [odd], slots=2)
    arena.fill(1)
    names = [place.spec.name for place in arena.layout.places]
    for slot in range(2):
        for number, place in enumerate(arena.layout.places):
            at = arena.layout.offset(place.spec.name, slot)
            before = "the first buffer" if number == 0 else names[number - 1]
            expected = {
                at - 1: before,
                at: None,
                at + place.spec.nbytes - 1: None,
                at + place.spec.nbytes: place.spec.name,
            }
            for position, name in expected.items():
                assert trampled(arena, position) == ([] if name is None else [name]), (slot, place.spec.name)


def trampled(arena: Arena, position: int) -> list[str]:
    """Names of the guards in which a byte that changes at a position shows."""
    first = [(name, strip, strip.clone()) for name, strip in arena.guards()]
    arena.memory[position] ^= 1
    found = [name for name, strip, before in first if not torch.equal(strip, before)]
    arena.memory[position] ^= 1
    return found


@pytest.mark.parametrize("base", [0, 1024])
def test_every_byte_belongs_to_a_buffer_or_to_a_guard(base: int) -> None:
    arena, _ = arena_of(SMALL, [TensorSpec("out", (7,), "float16")], slots=2, base=base)
    arena.memory.zero_()
    for _, strip in arena.guards():
        strip += 1
    for place in arena.layout.places:
        arena.raw(place).add_(1)
    assert bool((arena.memory == 1).all()), "bytes that belong to both, or to neither"


def test_the_fingerprint_sees_any_change_outside_of_a_slot_and_none_within() -> None:
    arena, _ = arena_of(SMALL, [TensorSpec("out", (300,), "float32")], slots=3)
    arena.fill(1)
    low = arena.layout.base + arena.layout.stride
    high = low + arena.layout.stride
    before, every = arena.fingerprint(1), arena.fingerprint()
    outside = [0, 1023, 1024, low - 1, high, high + GUARD + 3, arena.layout.nbytes - 1]
    for position in [*outside, *range(7, low, 997), low, low + 1, (low + high) // 2, high - 1]:
        for bit in (1, 128):
            arena.memory[position] ^= bit
            assert (arena.fingerprint(1) != before) == (not low <= position < high), position
            assert arena.fingerprint() != every
            arena.memory[position] ^= bit
    assert arena.fingerprint(1) == before


def test_the_fingerprint_sees_that_two_results_were_exchanged() -> None:
    arena, _ = arena_of(SMALL, [TensorSpec("out", (300,), "float32")], slots=3)
    arena.fill(1)
    before = arena.fingerprint(1)
    out = arena.raw(arena.layout.place("out"))
    kept = out[0].clone()
    out[0] = out[2]
    out[2] = kept
    assert arena.fingerprint(1) != before


@pytest.mark.parametrize("slots", [1, 2])
def test_the_fingerprint_of_few_slots_still_covers_what_lies_around(slots: int) -> None:
    arena, _ = arena_of(SMALL, slots=slots, base=0)
    arena.fill(1)
    before = arena.fingerprint(0)
    arena.memory[-1] ^= 1
    assert arena.fingerprint(0) != before


def test_one_bit_of_an_input_that_changes_is_seen_also_in_a_nan_and_in_a_zero() -> None:
    specs = [TensorSpec("x", (3,), "float32"), TensorSpec("flag", (2,), "bool"), TensorSpec("none", (0,), "float32")]
    arguments = {
        "x": torch.tensor([float("nan"), 0.0, 1.0]),
        "flag": torch.tensor([True, False]),
        "none": torch.empty(0),
    }
    arena, _ = arena_of(specs, slots=2)
    arena.put(0, arguments)
    arena.put(1, arguments)
    assert arena.differs(0, arguments) == arena.differs(1, arguments) == ()
    # The payload of the NaN, the sign of the zero, a True that is no 1.
    for name, offset, bit in (("x", 0, 1), ("x", 7, 128), ("flag", 0, 2)):
        at = arena.layout.offset(name, 1) + offset
        arena.memory[at] ^= bit
        assert arena.differs(1, arguments) == (name,) and arena.differs(0, arguments) == ()
        arena.memory[at] ^= bit


def test_one_bit_of_an_input_that_changes_is_seen_in_whatever_slot() -> None:
    specs = [TensorSpec("x", (3,), "float32"), TensorSpec("y", (), "int64")]
    arena, _ = arena_of(specs, slots=3)
    pool = {"x": torch.tensor([[float("nan"), 0.0, 1.0], [2.0, 3.0, 4.0]]), "y": torch.tensor([7, 8])}
    members = torch.tensor([0, 1, 0])
    arena.put_all(pool, members)
    assert arena.changed("input", pool, members) == ()
    assert arena.changed("input", pool, torch.tensor([0, 1, 1])) == ("x", "y")
    for name, slot, offset in (("x", 0, 0), ("x", 2, 7), ("y", 1, 3)):
        at = arena.layout.offset(name, slot) + offset
        arena.memory[at] ^= 1
        assert arena.changed("input", pool, members) == (name,)
        arena.memory[at] ^= 1


def test_inputs_without_elements_do_not_change() -> None:
    arena, _ = arena_of([TensorSpec("none", (0, 4), "float32")])
    pool = {"none": torch.empty(2, 0, 4)}
    members = torch.tensor([0, 1, 0])
    arena.put_all(pool, members)
    assert arena.changed("input", pool, members) == ()


def test_a_closed_arena_holds_no_memory() -> None:
    arena, _ = arena_of(SMALL)
    arena.close()
    arena.close()
    assert arena.memory.numel() == 0 and not arena.mapped
