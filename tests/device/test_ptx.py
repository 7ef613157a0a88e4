"""PTX is read whole, and what the simulator does not know is named."""

from __future__ import annotations

import numpy as np
import pytest

from tests.device.kit import GPU, build, compile_ptx, instruction, launch, spec
from warpsmith.device.simulator import Simulator
from warpsmith.device.simulator.parse import parse
from warpsmith.device.simulator.ptx import Address, Float, Instruction, Integer, Pair, Register, Symbol, Vector
from warpsmith.errors import SimulatorError
from warpsmith.records import BoundPlan

TEXT = """
.version 8.5 // a comment
.target sm_90, debug
.address_size 64
.global .align 8 .u64 pointers[2] = {generic(values)+8, values};
.visible .global .align 4 .f32 values[3] = {0f3F800000, 0f40000000};
.const .b8 bytes[4] = {1, 0x2, 255};
.extern .shared .align 16 .b8 dynamic[];
/* a longer
   comment */
.visible .entry k(.param .u64 .ptr .align 4 k_0, .param .align 8 .b8 k_1[24]) .maxntid 128, 2, 1
{
    .reg .pred %p<3>;
    .reg .b32 %r<9>, %x;
    .reg .b64 %rd<4>;
    .shared .align 4 .b8 tile[128];
    .loc 1 7 3
    ld.param.u64 %rd1, [k_0];
    @!%p1 ld.global.v2.f32 {%r1, %r2}, [%rd1+-8];
    { .reg .b32 %x; mov.u32 %x, -5; add.s32 %r3, %x, 0x10; }
    .loc 2 900 1, function_name $L__info, inlined_at 1 12 4
    setp.lt.and.f32 %p1|%p2, %r1, 0fBF800000, !%p0;
    mov.u64 %rd2, values+4;
    bra.uni $done;
$done:
    ret;
}
"""


def test_a_module_is_read_whole():
    module = parse(TEXT)
    function = module.functions["k"]
    assert function.entry and function.max_threads == (128, 2, 1)
    assert [(one.name, one.size) for one in function.parameters] == [("k_0", 8), ("k_1", 24)]
    assert module.variables["values"].data == np.array([1, 2, 0], "f4").tobytes()
    assert module.variables["bytes"].data == bytes([1, 2, 255, 0])
    assert module.variables["pointers"].references == ((0, "values", 8), (8, "values", 0))
    assert module.variables["dynamic"].extern and module.variables["dynamic"].size == 0
    steps = [item for item in function.body if isinstance(item, Instruction)]
    load = steps[1]
    assert (load.opcode, load.modifiers, load.line) == ("ld", ("global", "v2", "f32"), 7)
    assert load.guard == Register("%p1") and load.guard_negated
    assert load.operands == (Vector((Register("%r1"), Register("%r2"))), Address(Register("%rd1"), -8))
    inner = steps[2].operands[0]
    assert isinstance(inner, Register) and inner.name != "%x" and function.registers[inner.name] == "b32"
    assert steps[2].operands[1] == Integer(-5)
    compare = steps[4]
    assert compare.line == 12, "code inlined from a header counts as the line that called it"
    assert compare.operands[0] == Pair(Register("%p1"), Register("%p2"))
    assert compare.operands[2] == Float(0xBF800000, 32)
    assert steps[5].operands[1] == Symbol("values", 4)


@pytest.mark.parametrize(
    "text",
    [
        "mov.u32 {d}, missing;",
        "frobnicate.s32 {d}, {0};",
        "add.weird.s32 {d}, {0}, {0};",
        "cvt.rn.f32.e4m3 {d}, {0};",
        "mov.u32 {d}, %unknown.x;",
        "shfl.sync.sideways.b32 {d}, {0}, 1, 31, -1;",
        "ld.global.L3::always.b32 {d}, [{0}];",
        "atom.global.mul.u32 {d}, [{0}], 1;",
        "lop3.b32 {d}, {0}, {0}, {0}, {0};",
    ],
)
def test_an_unknown_instruction_is_named(text):
    with pytest.raises(SimulatorError) as caught:
        instruction(text, [np.zeros(1, np.uint32)], "i4")
    assert text.split()[0] in str(caught.value)


@pytest.mark.parametrize("text", ["", "#include", ".entry k(", ".visible .entry k() { add.s32 %r1"])
def test_what_is_not_ptx_is_refused(text):
    if text == "":
        assert parse(text).functions == {}
        return
    with pytest.raises(SimulatorError):
        parse(text)


def test_recursion_and_indirect_calls_are_refused():
    recursive = """__noinline__ __device__ int f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); }
    extern "C" __global__ void k(int* out) { out[0] = f(out[1]); }"""
    pointer = """typedef int (*F)(int); __device__ int a(int n) { return n + 1; } __device__ int b(int n) { return n * 2; }
    extern "C" __global__ void k(int* out) { F f = out[1] ? a : b; out[0] = f(3); }"""
    for source, said in ((recursive, "recursive"), (pointer, "missing|unknown|indirect")):
        plan = BoundPlan((), (launch("k", 1, 1, ["out"]),))
        with pytest.raises(SimulatorError, match=said):
            Simulator(GPU).run(build(compile_ptx(source)), plan, {}, [spec("out", 2, "int32")], fill=1)
