"""Turn each basic block into a Python function over whole-array registers.

A decoded instruction becomes one line of Python: `r7 = f3(r5, r6.view(i4))`. Every register has a home dtype, the
one in which most instructions use it; other uses take a view. Registers that only a block uses stay local variables
of its function, and are dropped after their last use so that their memory is used again while it is in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpsmith.device.simulator import accesses, alu, bulk_emit, collective, mma, moves, special, wgmma
from warpsmith.device.simulator.chains import Chains
from warpsmith.device.simulator.decode import BOOL, DTYPES, SHORT, DType, Operation
from warpsmith.device.simulator.flow import Block, Flow, needs_whole_warp
from warpsmith.device.simulator.liveness import CARRY, ENDS, IGNORED, reads_and_writes
from warpsmith.device.simulator.ptx import (
    Float,
    Instruction,
    Integer,
    Negated,
    Operand,
    Pair,
    Register,
    Symbol,
    Vector,
)
from warpsmith.device.simulator.site import Site

U4 = np.dtype(np.uint32)
Handler = Callable[["Emitter", Instruction], str | None]
HANDLERS: dict[str, Handler] = {
    "mov": moves.mov,
    "move": moves.move,
    "cvta": moves.cvta,
    "isspacep": moves.isspacep,
    "mapa": moves.mapa,
    "getctarank": moves.getctarank,
    "ld": accesses.load,
    "ldu": accesses.load,
    "st": accesses.store,
    "atom": accesses.atomic,
    "red": accesses.atomic,
    "cp": bulk_emit.copy,
    "mbarrier": bulk_emit.barrier,
    "ldmatrix": accesses.load_matrix,
    "mma": mma.mma,
    "wgmma": wgmma.emit,
    "shfl": collective.shuffle,
    "vote": collective.vote,
    "redux": collective.redux,
    "match": collective.match,
    "elect": collective.elect,
    "activemask": collective.activemask,
    "bar": collective.barrier,
    "barrier": collective.barrier,
    "membar": collective.fence,
    "fence": collective.fence,
    **dict.fromkeys((*ENDS, *IGNORED, "nanosleep", "setmaxnreg"), moves.control),
}


@dataclass(frozen=True, slots=True)
class Code:
    """An executable kernel: a function for each block, classes of its instructions, and its memory instructions.

    `chains` tells how often warps wait for memory.
    """

    functions: tuple[Callable[..., None], ...]
    classes: tuple[tuple[tuple[str, int], ...], ...]
    chains: Chains
    lengths: tuple[int, ...]
    live: tuple[tuple[int, ...], ...]
    slots: dict[str, int]
    homes: dict[str, DType]
    sites: tuple[Site, ...]
    members: tuple[tuple[int, int] | None, ...]
    text: str


class Emitter:
    """Emits one kernel. `addresses` gives those of module variables."""

    def __init__(self, flow: Flow, addresses: dict[str, int]) -> None:
        self.flow = flow
        self.addresses = addresses
        self.namespace: dict[str, Any] = {short: dtype for dtype, short in SHORT.items()}
        self.names: dict[int, str] = {}
        self.keep: list[Any] = []
        self.constants: dict[tuple[DType, bytes], str] = {}
        self.slots = {name: number for number, name in enumerate(flow.registers)}
        self.operations: dict[int, Operation | None] = {}
        for block in flow.blocks:
            for step in block.steps:
                self.operations[id(step)] = alu.decode(step)
        self.home = self._homes()
        self.sites: list[Site] = []
        self.lines: list[str] = []

    # -- dtypes

    def _homes(self) -> dict[str, DType]:
        """Choose the dtype of every register by how often it is used as which."""
        votes: dict[str, Counter[DType]] = {name: Counter() for name in self.flow.registers}

        def vote(operand: Operand, dtype: DType) -> None:
            if isinstance(operand, Vector):
                for item in operand.items:
                    vote(item, dtype)
            elif isinstance(operand, Register) and operand.name in votes:
                votes[operand.name][dtype] += 1

        for block in self.flow.blocks:
            for step in block.steps:
                operation = self.operations[id(step)]
                if operation is not None:
                    first = step.operands[0]
                    if not isinstance(first, Pair):
                        vote(first, operation.outputs[0])
                    for operand, dtype in zip(step.operands[1:], operation.inputs):
                        vote(operand, dtype)
                elif step.opcode in ("ld", "st", "atom", "mov", "move") and step.modifiers:
                    kind = step.modifiers[-1]
                    if kind in ("f32", "f64", "f16"):
                        for operand in step.operands:
                            vote(operand, DTYPES[kind])
        homes: dict[str, DType] = {}
        for name, kind in self.flow.registers.items():
            size = DTYPES[kind].itemsize
            if kind == "pred":
                homes[name] = BOOL
                continue
            fitting = Counter({dtype: n for dtype, n in votes[name].items() if dtype.itemsize == size})
            integers = sum(n for dtype, n in fitting.items() if dtype.kind in "iu")
            floats = sum(n for dtype, n in fitting.items() if dtype.kind == "f")
            if floats > integers or (kind[0] == "f" and not integers):
                homes[name] = np.dtype(f"f{size}")
            else:
                homes[name] = np.dtype(f"i{size}")
        return homes

    # -- names

    def object(self, thing: Any) -> str:
        """Return the name of an object in the functions' namespace."""
        name = self.names.get(id(thing))
        if name is None:
            name = self.names[id(thing)] = f"o{len(self.names)}"
            self.namespace[name] = thing
            self.keep.append(thing)
        return name

    def constant(self, value: np.ndarray[Any, Any]) -> str:
        """Return the name of an array of one element."""
        key = (value.dtype, value.tobytes())
        name = self.constants.get(key)
        if name is None:
            value.flags.writeable = False
            name = self.constants[key] = f"k{len(self.constants)}"
            self.namespace[name] = value
        return name

    def number(self, value: int, dtype: DType) -> str:
        """Return a constant of an integer that wraps to the dtype."""
        if dtype.kind == "b":
            return self.constant(np.array([value != 0]))
        bits = dtype.itemsize * 8
        unsigned = np.array([value % (1 << bits)], np.dtype(f"u{dtype.itemsize}"))
        return self.constant(unsigned.view(dtype))

    # -- operands

    def read(self, step: Instruction, operand: Operand, dtype: DType) -> str:
        """Return an expression for an operand as an array of `dtype`."""
        match operand:
            case Register(name) if name in self.home:
                return self._view(f"r{self.slots[name]}", self.home[name], dtype)
            case Register(name):
                return self._special(step, name, dtype)
            case Negated(register):
                return f"~r{self.slots[register.name]}"
            case Integer(value):
                if dtype.kind == "f" and step.opcode not in ("mov", "st", "move", "selp"):
                    bits = dtype.itemsize * 8
                    if bits > 16:
                        raise step.fail("an integer literal where a float is due")
                return self.number(value, dtype)
            case Float(bits, width):
                return self._float(step, bits, width, dtype)
            case Symbol(name, offset):
                return self.number(self.address(step, name) + offset, dtype)
        raise step.fail("unsupported operand")

    def _float(self, step: Instruction, bits: int, width: int, dtype: DType) -> str:
        raw = np.array([bits], np.dtype(f"u{width // 8}"))
        if dtype.itemsize == width // 8:
            return self.constant(raw.view(dtype))
        if dtype.kind == "f":
            return self.constant(raw.view(np.dtype(f"f{width // 8}")).astype(dtype))
        raise step.fail("a float literal of another width")

    def _view(self, text: str, home: DType, dtype: DType) -> str:
        if home == dtype:
            return text
        if home.itemsize == dtype.itemsize:
            return f"{text}.view({SHORT[dtype]})"
        whole = text if home.kind in "iu" else f"{text}.view(i{home.itemsize})"
        return f"{whole}.astype({SHORT[dtype]})"

    def _special(self, step: Instruction, name: str, dtype: DType) -> str:
        reader = special.reader(step, name)
        return f"{self.object(reader)}(M, F).astype({SHORT[dtype]})"

    def address(self, step: Instruction, name: str) -> int:
        """The address of a variable in its own space."""
        for table in (self.flow.local, self.flow.shared, self.addresses):
            if name in table:
                return table[name]
        raise step.fail(f"unknown variable {name}")

    def write(self, step: Instruction, operand: Operand, text: str, dtype: DType) -> None:
        """Emit the assignment of an expression of `dtype` to a register."""
        if isinstance(operand, Register) and operand.name == "_":
            return
        if not isinstance(operand, Register) or operand.name not in self.home:
            raise step.fail("unsupported destination")
        home = self.home[operand.name]
        if home.itemsize == dtype.itemsize or dtype == home:
            value = text if home == dtype else f"{text}.view({SHORT[home]})"
        elif dtype.kind in "iub":
            whole = np.dtype(f"i{home.itemsize}")
            value = f"{text}.astype({SHORT[whole]})" + ("" if whole == home else f".view({SHORT[home]})")
        else:
            raise step.fail("a float result in a register of another width")
        self.lines.append(f"r{self.slots[operand.name]} = {value}")

    def site(self, step: Instruction, space: str, dtype: DType, count: int, offset: int, **flags: bool) -> str:
        """Describe a memory instruction; return its name."""
        site = Site(len(self.sites), step.text, step.line, space, dtype, count, offset, **flags)
        self.sites.append(site)
        return self.object(site)

    # -- instructions

    def emit(self, step: Instruction) -> str | None:
        """Emit one instruction; return the class it is counted in, None if it costs nothing."""
        self._check_in_flight(step)
        operation = self.operations[id(step)]
        if operation is not None:
            self._operation(step, operation)
            return operation.kind
        handler = HANDLERS.get(step.opcode)
        if handler is None:
            raise step.fail("unknown instruction")
        return handler(self, step)

    def _check_in_flight(self, step: Instruction) -> None:
        """Look whether an instruction meets a result of `wgmma` that is on its way, where it may."""
        names = self.flow.in_flight.reads.get(id(step), ())
        if names:
            read = "".join(f"{self.read(step, Register(name), U4)}, " for name in names)
            self.lines.append(f"if M.watch is not None: M.products.check(F, {step.line}, ({read}))")

    def _operation(self, step: Instruction, operation: Operation) -> None:
        sources = [self.read(step, operand, dtype) for operand, dtype in zip(step.operands[1:], operation.inputs)]
        if len(step.operands) - 1 < len(operation.inputs):
            raise step.fail("too few operands")
        carry = f"r{self.slots[CARRY]}"
        if operation.carry_in:
            sources.append(carry)
        call = f"{self.object(operation.function)}({', '.join(sources)})"
        if operation.carry_out:
            self.lines.append(f"t, {carry} = {call}")
            self.write(step, step.operands[0], "t", operation.outputs[0])
        elif len(operation.outputs) == 2:
            pair = step.operands[0]
            if not isinstance(pair, Pair):
                raise step.fail("two destinations are due")
            self.lines.append(f"t, u = {call}")
            self.write(step, pair.first, "t", operation.outputs[0])
            self.write(step, pair.second, "u", operation.outputs[1])
        else:
            self.write(step, step.operands[0], call, operation.outputs[0])


def _member_mask(e: Emitter, block: Block) -> tuple[int, int] | None:
    """Where the member mask of a waiting block stands: (register slot, -1) or (-1, constant)."""
    if not block.waits:
        return None
    if needs_whole_warp(block.steps[0]):
        return -1, 0xFFFFFFFF
    mask = block.steps[0].operands[-1]
    if isinstance(mask, Register):
        return e.slots[mask.name], -1
    if isinstance(mask, Integer):
        return -1, mask.value & 0xFFFFFFFF
    raise block.steps[0].fail("unsupported member mask")


def _block_text(e: Emitter, block: Block, live_out: set[str]) -> tuple[str, list[str | None]]:
    """Return the source of a block's function and the class of each of its instructions."""
    classes: list[str | None] = []
    body: list[str] = []
    last_use: dict[str, int] = {}
    for number, step in enumerate(block.steps):
        for name in (*(reads_and_writes(step)[0]), *(reads_and_writes(step)[1])):
            if name in e.slots:
                last_use[name] = number
    needed = [name for name in e.flow.registers if name in block.live_in and name in last_use]
    kept = live_out | set(block.decides)
    written: set[str] = set()
    for number, step in enumerate(block.steps):
        e.lines = []
        classes.append(e.emit(step))
        body += e.lines
        written |= {name for name in reads_and_writes(step)[1] if name in e.slots}
        dropped = [f"r{e.slots[name]}" for name, at in last_use.items() if at == number and name not in kept]
        if dropped and number + 1 < len(block.steps):
            body.append(f"{' = '.join(dropped)} = None")
    stored = [name for name in sorted(written) if name in kept]
    head = [f"r{e.slots[name]} = R[{e.slots[name]}]" for name in needed]
    tail = [f"R[{e.slots[name]}] = r{e.slots[name]}" for name in stored]
    lines = ["R = F.R", *head, *body, *tail]
    return f"def block_{block.index}(M, F):\n" + "".join(f"    {line}\n" for line in lines), classes


def emit(flow: Flow, addresses: dict[str, int]) -> Code:
    """Translate a kernel. Raises SimulatorError naming an instruction that the simulator does not know."""
    emitter = Emitter(flow, addresses)
    texts: list[str] = []
    classes: list[tuple[tuple[str, int], ...]] = []
    all_kinds: list[list[str | None]] = []
    for block in flow.blocks:
        live_out = {name for target in block.targets for name in flow.blocks[target].live_in}
        text, kinds = _block_text(emitter, block, live_out)
        texts.append(text)
        counted = Counter(kind for kind in kinds if kind is not None)
        all_kinds.append(kinds)
        classes.append(tuple(sorted(counted.items())))
    source = "\n".join(texts)
    namespace = emitter.namespace
    exec(compile(source, f"<{flow.name}>", "exec"), namespace)
    return Code(
        tuple(namespace[f"block_{block.index}"] for block in flow.blocks),
        tuple(classes),
        Chains(flow, all_kinds),
        tuple(sum(count for _, count in one) for one in classes),
        tuple(tuple(sorted(emitter.slots[name] for name in block.live_in)) for block in flow.blocks),
        emitter.slots,
        emitter.home,
        tuple(emitter.sites),
        tuple(_member_mask(emitter, block) for block in flow.blocks),
        source,
    )
