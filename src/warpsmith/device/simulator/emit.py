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

from warpsmith.device.simulator import alu, atomics, memory, special, warp
from warpsmith.device.simulator.decode import BOOL, DTYPES, DType, Modifiers, Operation
from warpsmith.device.simulator.flow import CARRY, IGNORED, Barrier, Block, Flow, reads_and_writes
from warpsmith.device.simulator.ptx import (
    Address,
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

SPACES = ("global", "shared", "local", "const", "param")
CACHE_HINTS = ("nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "weak")
STRONG = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "sc")
SCOPES = ("cta", "cluster", "gpu", "sys")
SHORT = {np.dtype(name): name for name in ("i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8")}
SHORT[BOOL] = "b1"


@dataclass(frozen=True, slots=True)
class Code:
    """An executable kernel: a function for each block, classes of its instructions, and its memory instructions."""

    functions: tuple[Callable[..., None], ...]
    classes: tuple[tuple[tuple[str, int], ...], ...]
    lengths: tuple[int, ...]
    live: tuple[tuple[int, ...], ...]
    slots: dict[str, int]
    homes: dict[str, DType]
    sites: tuple[Site, ...]
    members: tuple[tuple[int, int] | None, ...]
    text: str


class Emitter:
    """Emits one kernel. `addresses` gives those of module variables, `parameters` the offsets of the arguments."""

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
        operation = self.operations[id(step)]
        if operation is not None:
            self._operation(step, operation)
            return operation.kind
        handler = HANDLERS.get(step.opcode)
        if handler is None:
            raise step.fail("unknown instruction")
        return handler(self, step)

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


# ------------------------------------------------------------------------------------------------ moves and addresses


def _mov(e: Emitter, step: Instruction) -> str:
    kind = step.modifiers[-1]
    if kind not in DTYPES:
        raise step.fail(f"unknown type .{kind}")
    target, source = step.operands
    if isinstance(source, Vector):
        _pack(e, step, target, source, DTYPES[kind])
    elif isinstance(target, Vector):
        _unpack(e, step, target, source, DTYPES[kind])
    else:
        dtype = DTYPES[kind]
        if isinstance(target, Register) and target.name in e.home and e.home[target.name].itemsize == dtype.itemsize:
            dtype = e.home[target.name]
        e.write(step, target, e.read(step, source, dtype), dtype)
    return "other"


def _pack(e: Emitter, step: Instruction, target: Operand, source: Vector, dtype: DType) -> None:
    """`mov.b64 d, {a, b}`: the first item to the low bits."""
    part = np.dtype(f"u{dtype.itemsize // len(source.items)}")
    items = ", ".join(e.read(step, item, part) for item in source.items)
    e.write(step, target, f"{e.object(special.pack)}({SHORT[np.dtype(f'u{dtype.itemsize}')]}, {items})", dtype)


def _unpack(e: Emitter, step: Instruction, target: Vector, source: Operand, dtype: DType) -> None:
    """`mov.b64 {a, b}, d`."""
    part = np.dtype(f"u{dtype.itemsize // len(target.items)}")
    text = e.read(step, source, np.dtype(f"u{dtype.itemsize}"))
    e.lines.append(f"t = {text}.view({SHORT[part]}).reshape(-1, {len(target.items)})")
    for column, item in enumerate(target.items):
        e.write(step, item, f"t[:, {column}].copy()", part)


def _move(e: Emitter, step: Instruction) -> None:
    """A parameter of an inlined call: written or read as the stated type."""
    targets, sources = step.operands
    assert isinstance(targets, Vector) and isinstance(sources, Vector)
    dtype = DTYPES[step.modifiers[0]]
    for number, source in enumerate(sources.items):
        e.lines.append(f"t{number} = {e.read(step, source, dtype)}")
    for number, target in enumerate(targets.items):
        e.write(step, target, f"t{number}", dtype)


def _cvta(e: Emitter, step: Instruction) -> str:
    modifiers = Modifiers(step)
    back = modifiers.take("to")
    space = modifiers.one_of(*SPACES, default="global")
    modifiers.type()
    modifiers.done()
    base = {"shared": memory.SHARED_BASE, "local": memory.LOCAL_BASE}.get(space, 0)
    text = e.read(step, step.operands[1], np.dtype(np.int64))
    if base:
        text = f"{text} {'-' if back else '+'} {e.number(base, np.dtype(np.int64))}"
    e.write(step, step.operands[0], f"({text})", np.dtype(np.int64))
    return "other"


def _isspacep(e: Emitter, step: Instruction) -> str:
    space = step.modifiers[0]
    if space not in special.SPACE_TESTS:
        raise step.fail(f"unknown space .{space}")
    text = e.read(step, step.operands[1], np.dtype(np.int64))
    e.write(step, step.operands[0], f"{e.object(special.SPACE_TESTS[space])}({text})", BOOL)
    return "int"


# ------------------------------------------------------------------------------------------------------------- memory


def _access(step: Instruction) -> tuple[str, str, int, bool, bool]:
    """Read the modifiers of ld and st: space, type, elements, strong, read-only."""
    names = [name for name in step.modifiers if "::" not in name and name not in SCOPES]
    dropped = [name for name in step.modifiers if "::" in name]
    for name in dropped:
        stem = name.split("::")[0]
        if stem not in ("L1", "L2", "shared", "param", "level"):
            raise step.fail(f"unknown modifier .{name}")
        if stem in ("shared", "param"):
            if name.split("::")[1] not in ("cta", "entry", "func"):
                raise step.fail(f"unknown modifier .{name}")
            names.insert(0, stem)
    space, kind, count, strong, read_only = "generic", "", 1, False, False
    for name in names:
        if name in SPACES:
            space = "global" if name == "const" else name
            read_only = read_only or name == "const"
        elif name in DTYPES:
            kind = name
        elif name in ("v2", "v4"):
            count = int(name[1:])
        elif name in STRONG:
            strong = True
        elif name == "nc":
            read_only = True
        elif name not in CACHE_HINTS:
            raise step.fail(f"unknown modifier .{name}")
    if not kind:
        raise step.fail("no type that the simulator knows")
    return space, kind, count, strong, read_only


def _base(e: Emitter, step: Instruction, where: Operand, space: str) -> tuple[str, int]:
    """Return the expression of an address without its constant offset, and that offset."""
    if not isinstance(where, Address):
        raise step.fail("an address is due")
    match where.base:
        case Register(name) if name in e.home:
            size = e.home[name].itemsize
            return e.read(step, where.base, np.dtype(f"i{size}")), where.offset
        case Symbol(name, _):
            address = e.address(step, name)
            return e.number(address, np.dtype(np.int64)), where.offset
        case Integer(value):
            return e.number(value, np.dtype(np.int64)), where.offset
    raise step.fail("unsupported address")


def _ld(e: Emitter, step: Instruction) -> str:
    space, kind, count, strong, read_only = _access(step)
    target, where = step.operands[:2]
    targets = target.items if isinstance(target, Vector) else (target,)
    dtype = _memory_dtype(e, kind, targets)
    if space == "param":
        _ld_param(e, step, targets, where, kind)
        return "other"
    base, offset = _base(e, step, where, space)
    site = e.site(step, space, dtype, count, offset, strong=strong, read_only=read_only)
    call = f"{e.object(memory.load)}(M, F, {site}, {base})"
    if count == 1:
        e.write(step, targets[0], f"{call}[0]", dtype)
        return "local" if space == "local" else "shared" if space == "shared" else "global"
    e.lines.append(f"t = {call}")
    for column, item in enumerate(targets):
        e.write(step, item, f"t[{column}]", dtype)
    return "local" if space == "local" else "shared" if space == "shared" else "global"


def _memory_dtype(e: Emitter, kind: str, registers: tuple[Operand, ...]) -> DType:
    """The dtype to move: that of the register where the widths agree, so that no view is needed."""
    dtype = DTYPES[kind]
    first = registers[0]
    if isinstance(first, Register) and first.name in e.home:
        home = e.home[first.name]
        if home.itemsize == dtype.itemsize:
            return home
    return dtype


def _ld_param(e: Emitter, step: Instruction, targets: tuple[Operand, ...], where: Operand, kind: str) -> None:
    """A kernel's argument: the same for all threads, known at launch."""
    if not isinstance(where, Address) or not isinstance(where.base, Symbol):
        raise step.fail("a parameter whose address is computed")
    dtype = DTYPES[kind]
    for number, target in enumerate(targets):
        offset = where.offset + number * dtype.itemsize
        text = f"M.argument({where.base.name!r}, {offset}, {SHORT[dtype]})"
        e.write(step, target, text, dtype)


def _st(e: Emitter, step: Instruction) -> str:
    space, kind, count, strong, _ = _access(step)
    where, value = step.operands[:2]
    values = value.items if isinstance(value, Vector) else (value,)
    dtype = _memory_dtype(e, kind, values)
    base, offset = _base(e, step, where, space)
    site = e.site(step, space, dtype, count, offset, strong=strong)
    items = ", ".join(e.read(step, item, dtype) for item in values)
    e.lines.append(f"{e.object(memory.store)}(M, F, {site}, {base}, {items})")
    return "local" if space == "local" else "shared" if space == "shared" else "global"


def _atom(e: Emitter, step: Instruction) -> str:
    names = [name for name in step.modifiers if name not in SCOPES and name not in STRONG]
    names = [name.split("::")[0] if name == "shared::cta" else name for name in names]
    space = "generic"
    if names and names[0] in ("global", "shared"):
        space = names.pop(0)
    names = [name for name in names if name not in ("noftz", "L2::cache_hint")]
    if len(names) != 2 or names[1] not in DTYPES:
        raise step.fail("unknown form of atomic")
    returns = step.opcode == "atom"
    where, *sources = step.operands[1:] if returns else step.operands
    dtype = DTYPES[names[1]]
    function = atomics.operation(step, names[0], names[1])
    base, offset = _base(e, step, where, space)
    site = e.site(step, space, dtype, 1, offset, atomic=True)
    items = ", ".join(e.read(step, item, dtype) for item in sources)
    call = f"{e.object(atomics.execute)}(M, F, {site}, {e.object(function)}, {returns}, {base}, {items})"
    if returns and not (isinstance(step.operands[0], Register) and step.operands[0].name == "_"):
        e.write(step, step.operands[0], call, dtype)
    else:
        e.lines.append(call)
    return "atomic"


# --------------------------------------------------------------------------------------------------------------- warp


def _shfl(e: Emitter, step: Instruction) -> str:
    modifiers = Modifiers(step)
    modifiers.one_of("sync")
    mode = modifiers.one_of("up", "down", "bfly", "idx")
    modifiers.type()
    modifiers.done()
    target, value, b, c, member = step.operands
    word = np.dtype(np.int32)
    if isinstance(value, Register) and value.name in e.home:
        word = e.home[value.name]
    integer = np.dtype(np.int32)
    items = ", ".join((e.read(step, value, word), *(e.read(step, one, integer) for one in (b, c, member))))
    e.lines.append(f"t, u = {e.object(warp.shuffle(mode))}(M, F, {step.line}, {items})")
    e.write(step, target.first if isinstance(target, Pair) else target, "t", word)
    if isinstance(target, Pair):
        e.write(step, target.second, "u", BOOL)
    return "shuffle"


def _vote(e: Emitter, step: Instruction) -> str:
    modifiers = Modifiers(step)
    modifiers.one_of("sync")
    mode = modifiers.one_of("all", "any", "uni", "ballot")
    modifiers.type()
    modifiers.done()
    target, predicate, member = step.operands
    text = f"{e.read(step, predicate, BOOL)}, {e.read(step, member, np.dtype(np.int32))}"
    dtype = np.dtype(np.int32) if mode == "ballot" else BOOL
    e.write(step, target, f"{e.object(warp.vote(mode))}(M, F, {step.line}, {text})", dtype)
    return "shuffle"


def _redux(e: Emitter, step: Instruction) -> str:
    modifiers = Modifiers(step)
    modifiers.one_of("sync")
    name = modifiers.one_of("add", "min", "max", "and", "or", "xor")
    dtype = DTYPES[modifiers.type()]
    modifiers.done()
    target, value, member = step.operands
    text = f"{e.read(step, value, dtype)}, {e.read(step, member, np.dtype(np.int32))}"
    function = warp.redux(name, dtype.kind == "i")
    e.write(step, target, f"{e.object(function)}(M, F, {step.line}, {text})", dtype)
    return "shuffle"


def _match(e: Emitter, step: Instruction) -> str:
    modifiers = Modifiers(step)
    mode = modifiers.one_of("any", "all")
    modifiers.one_of("sync")
    dtype = DTYPES[modifiers.type()]
    modifiers.done()
    target, value, member = step.operands
    text = f"{e.read(step, value, dtype)}, {e.read(step, member, np.dtype(np.int32))}"
    call = f"{e.object(warp.match(mode))}(M, F, {step.line}, {text})"
    integer = np.dtype(np.int32)
    if mode == "any":
        e.write(step, target, call, integer)
        return "shuffle"
    e.lines.append(f"t, u = {call}")
    e.write(step, target.first if isinstance(target, Pair) else target, "t", integer)
    if isinstance(target, Pair):
        e.write(step, target.second, "u", BOOL)
    return "shuffle"


def _activemask(e: Emitter, step: Instruction) -> str:
    e.write(step, step.operands[0], f"{e.object(warp.active_mask)}(M, F)", np.dtype(np.int32))
    return "shuffle"


def _bar(e: Emitter, step: Instruction) -> str:
    if step.modifiers[:1] == ("warp",):
        e.lines.append("M.warp_barrier(F)")
        return "barrier"
    if "red" in step.modifiers:
        names = [name for name in step.modifiers if name not in ("cta", "aligned", "red", "pred", "u32")]
        if names not in (["popc"], ["and"], ["or"]):
            raise step.fail("unknown reduction")
        e.lines.append(f"M.barrier_values = ({names[0]!r}, {e.read(step, step.operands[-1], BOOL)})")
        target = step.operands[0]
        if isinstance(target, Register):
            e.lines.append(f"r{e.slots[target.name]} = {e.number(0, e.home[target.name])}")
    return "barrier"


def _fence(e: Emitter, step: Instruction) -> str:
    known = {"gl", "cta", "sys", "sc", "acq_rel", "gpu", "cluster", "level", "proxy", "alias", "async"}
    if not set(step.modifiers) <= known:
        raise step.fail("unknown form of fence")
    return "barrier"


def _control(e: Emitter, step: Instruction) -> str | None:
    if step.opcode in IGNORED:
        return None
    return "control"


def _cp(e: Emitter, step: Instruction) -> str | None:
    """`cp.async`: executed at once; waiting for it is then nothing to do."""
    names = [name for name in step.modifiers if not name.startswith("L2::")]
    if names[:1] != ["async"] or "bulk" in names:
        raise step.fail("unknown form of copy")
    if "commit_group" in names or "wait_group" in names or "wait_all" in names:
        return "control"
    if names[1:] not in (["ca", "shared", "global"], ["cg", "shared", "global"], ["ca", "shared::cta", "global"],
                         ["cg", "shared::cta", "global"]):  # fmt: skip
        raise step.fail("unknown form of copy")
    target, source, size, *rest = step.operands
    if not isinstance(size, Integer):
        raise step.fail("the size must be constant")
    dtype: DType = np.dtype(np.int32 if size.value == 4 else np.int64)
    count = 2 if size.value == 16 else 1
    to, to_offset = _base(e, step, target, "shared")
    start, start_offset = _base(e, step, source, "global")
    reading = e.site(step, "global", dtype, count, start_offset)
    writing = e.site(step, "shared", dtype, count, to_offset)
    kept = e.read(step, rest[0], np.dtype(np.int32)) if rest else "None"
    e.lines.append(f"{e.object(special.copy_async)}(M, F, {reading}, {writing}, {to}, {start}, {kept})")
    return "global"


HANDLERS: dict[str, Callable[[Emitter, Instruction], str | None]] = {
    "mov": _mov,
    "move": lambda e, step: _move(e, step),
    "cvta": _cvta,
    "isspacep": _isspacep,
    "ld": _ld,
    "ldu": _ld,
    "st": _st,
    "atom": _atom,
    "red": _atom,
    "shfl": _shfl,
    "vote": _vote,
    "redux": _redux,
    "match": _match,
    "activemask": _activemask,
    "bar": _bar,
    "barrier": _bar,
    "membar": _fence,
    "fence": _fence,
    "cp": _cp,
    **dict.fromkeys(("bra", "brx", "ret", "exit", "trap", "nanosleep", *IGNORED), _control),
}


# ------------------------------------------------------------------------------------------------------------ blocks


def _member_mask(e: Emitter, block: Block) -> tuple[int, int] | None:
    """Where the member mask of a waiting block stands: (register slot, -1) or (-1, constant)."""
    if not block.waits:
        return None
    mask = block.steps[0].operands[-1]
    if isinstance(mask, Register):
        return e.slots[mask.name], -1
    if isinstance(mask, Integer):
        return -1, mask.value & 0xFFFFFFFF
    raise block.steps[0].fail("unsupported member mask")


def _block_text(e: Emitter, block: Block, live_out: set[str]) -> tuple[str, Counter[str]]:
    """Return the source of a block's function and the classes of its instructions."""
    classes: Counter[str] = Counter()
    body: list[str] = []
    last_use: dict[str, int] = {}
    for number, step in enumerate(block.steps):
        for name in (*(reads_and_writes(step)[0]), *(reads_and_writes(step)[1])):
            if name in e.slots:
                last_use[name] = number
    needed = [name for name in e.flow.registers if name in block.live_in and name in last_use]
    kept = set(live_out)
    if hasattr(block.end, "predicate"):
        kept.add(block.end.predicate)
    if hasattr(block.end, "selector"):
        kept.add(block.end.selector)
    written: set[str] = set()
    for number, step in enumerate(block.steps):
        e.lines = []
        kind = e.emit(step)
        if kind is not None:
            classes[kind] += 1
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
    for block in flow.blocks:
        live_out = {name for target in block.targets for name in flow.blocks[target].live_in}
        if isinstance(block.end, Barrier):
            for operand in (block.end.barrier, block.end.threads):
                if isinstance(operand, Register):
                    live_out.add(operand.name)
        text, counted = _block_text(emitter, block, live_out)
        texts.append(text)
        classes.append(tuple(sorted(counted.items())))
    source = "\n".join(texts)
    namespace = emitter.namespace
    exec(compile(source, f"<{flow.name}>", "exec"), namespace)
    return Code(
        tuple(namespace[f"block_{block.index}"] for block in flow.blocks),
        tuple(classes),
        tuple(sum(count for _, count in one) for one in classes),
        tuple(tuple(sorted(emitter.slots[name] for name in block.live_in)) for block in flow.blocks),
        emitter.slots,
        emitter.home,
        tuple(emitter.sites),
        tuple(_member_mask(emitter, block) for block in flow.blocks),
        source,
    )
