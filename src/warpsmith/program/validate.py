"""What can be said of a plan without shapes: names, clashes, the syntax of expressions, flags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from warpsmith.errors import ExpressionError, ProgramError
from warpsmith.program.arithmetic import FUNCTIONS, INT64_MAX, INT64_MIN
from warpsmith.program.flags import canonical_flags
from warpsmith.program.hints import suggest
from warpsmith.program.library import LIBRARY
from warpsmith.program.parser import parse
from warpsmith.records import DTYPE_BYTES, Call, Launch, Plan, View

DEVICE_PROPERTIES: Final[tuple[str, ...]] = (
    "sm_count",
    "warp_size",
    "max_threads_per_block",
    "threads_per_sm",
    "blocks_per_sm",
    "registers_per_sm",
    "shared_per_block",
    "shared_per_sm",
    "l2_bytes",
)
"""Names that every expression may use; `bind` gives them the values of the device."""

MAX_ENTRIES: Final = 1024
"""Symbols, tunables, buffers, launches, calls, or arguments of one launch."""
MAX_TUNABLE_VALUES: Final = 256
MAX_DIMENSIONS: Final = 8

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED_TEXT = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t
    class compl
    concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete
    do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires return short signed sizeof static static_assert static_cast struct switch template this thread_local throw
    true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
    threadIdx blockIdx blockDim gridDim warpSize defined"""
_RESERVED = frozenset(_RESERVED_TEXT.split())


def validate_plan(plan: Plan) -> None:
    """Raise ProgramError, naming the place, unless the plan is well formed. See docs/program.md for the rules."""
    for what, entries in (
        ("symbols", plan.symbols),
        ("tunables", plan.tunables),
        ("buffers", plan.buffers),
        ("launches", plan.launches),
        ("calls", plan.calls),
    ):
        if len(entries) > MAX_ENTRIES:
            raise ProgramError(f"{len(entries)} {what}; {MAX_ENTRIES} is the limit")
    if not plan.steps:
        raise ProgramError("the plan launches nothing: it needs at least one [[launch]] or [[call]]")
    _check_names(plan)
    for name, text in plan.symbols:
        _check_expressions(f"symbols.{name}", (text,))
    for name, values in plan.tunables:
        _check_tunable(name, values)
    for buffer in plan.buffers:
        place = f"buffers.{buffer.name}"
        if buffer.dtype not in DTYPE_BYTES:
            raise ProgramError(f"{place}: unknown dtype {buffer.dtype!r}{suggest(buffer.dtype, DTYPE_BYTES)}")
        _check_expressions(f"{place}: shape", buffer.shape, MAX_DIMENSIONS)
    for number, launch in enumerate(plan.launches, 1):
        _check_launch(place_of(number, launch.kernel), launch)
    for number, call in enumerate(plan.calls, 1):
        _check_call(call_place(number, call.op), call)
    _check_order(plan)
    _check_overlaps(plan)
    canonical_flags(plan.flags)


def check_tunables(plan: Plan, tunables: Mapping[str, int]) -> None:
    """Raise ProgramError unless `tunables` gives one of the declared values for each tunable of the plan."""
    declared = dict(plan.tunables)
    if set(declared) != set(tunables):
        raise ProgramError(f"tunables given {sorted(tunables)}, declared {sorted(declared)}")
    for name, value in tunables.items():
        if isinstance(value, bool) or value not in declared[name]:
            raise ProgramError(f"tunable {name} = {value} is not one of {list(declared[name])}")


def place_of(number: int, kernel: str) -> str:
    """Name the `number`-th launch (from 1) in messages."""
    return f"launch {number} ({kernel})"


def call_place(number: int, op: str) -> str:
    """Name the `number`-th library call (from 1) in messages."""
    return f"call {number} ({op})"


def _check_names(plan: Plan) -> None:
    """Symbols, tunables, buffers, device properties and functions share one space of names."""
    owners = dict.fromkeys(DEVICE_PROPERTIES, "a property of the device") | dict.fromkeys(FUNCTIONS, "a function")
    groups: tuple[tuple[str, Iterable[str]], ...] = (
        ("a symbol", (name for name, _ in plan.symbols)),
        ("a tunable", (name for name, _ in plan.tunables)),
        ("a buffer", (buffer.name for buffer in plan.buffers)),
    )
    for owner, names in groups:
        for name in names:
            if _IDENTIFIER.fullmatch(name) is None:
                raise ProgramError(f"{name!r} cannot name {owner}: names are letters, digits and underscores")
            if name in owners:
                raise ProgramError(f"{name!r} is named twice: as {owners[name]} and as {owner}")
            owners[name] = owner


def _check_tunable(name: str, values: tuple[int, ...]) -> None:
    place = f"tunables.{name}"
    if name in _RESERVED or name.startswith("_") or "__" in name:
        raise ProgramError(f"{place}: the name is reserved in CUDA C++, and tunables become macros")
    if not values:
        raise ProgramError(f"{place}: needs at least one value")
    if len(values) > MAX_TUNABLE_VALUES:
        raise ProgramError(f"{place}: {len(values)} values; {MAX_TUNABLE_VALUES} is the limit")
    if len(set(values)) != len(values):
        raise ProgramError(f"{place}: a value is given twice")
    if any(isinstance(value, bool) or not INT64_MIN < value <= INT64_MAX for value in values):
        raise ProgramError(f"{place}: the values must be integers that fit 64 bits")


def _check_launch(place: str, launch: Launch) -> None:
    if _IDENTIFIER.fullmatch(launch.kernel) is None:
        raise ProgramError(f'{place}: {launch.kernel!r} is not the name of an extern "C" function')
    for name, extents in (("grid", launch.grid), ("block", launch.block)):
        if not extents:
            raise ProgramError(f"{place}: {name} needs one to three entries")
        _check_expressions(f"{place}: {name}", extents, 3)
    _check_expressions(f"{place}: cluster", launch.cluster, 3)
    _check_expressions(f"{place}: shared", (launch.shared,))
    _check_expressions(f"{place}: args", launch.args, MAX_ENTRIES)
    if launch.max_registers is not None and not 16 <= launch.max_registers <= 255:
        raise ProgramError(f"{place}: max_registers must lie between 16 and 255, not {launch.max_registers}")


def _check_call(place: str, call: Call) -> None:
    """The operator is allowed, has as many tensors as it takes, and no options but its own."""
    operator = LIBRARY.get(call.op)
    if operator is None:
        raise ProgramError(f"{place}: {call.op!r} may not be called{suggest(call.op, LIBRARY)}")
    most = len(operator.tensors)
    if not most - operator.optional <= len(call.args) <= most:
        names = ", ".join(operator.tensors)
        raise ProgramError(f"{place}: {len(call.args)} tensors in args; {call.op} takes {names}")
    for index, view in enumerate(call.args):
        _check_view(f"{place}: args[{index}]", view)
    _check_view(f"{place}: out", call.out)
    given = [name for name, _ in call.options]
    for name, texts in call.options:
        if name not in operator.options:
            raise ProgramError(f"{place}: {call.op} has no option {name!r}{suggest(name, operator.options)}")
        if given.count(name) > 1 or not texts:
            raise ProgramError(f"{place}: options.{name} must be given once, with at least one number")
        _check_expressions(f"{place}: options.{name}", texts, MAX_DIMENSIONS)


def _check_view(place: str, view: View) -> None:
    if _IDENTIFIER.fullmatch(view.tensor) is None:
        raise ProgramError(f"{place}: {view.tensor!r} is not the name of a tensor or buffer")
    if len(view.strides) not in (0, len(view.shape)):
        raise ProgramError(f"{place}: {len(view.strides)} strides for a shape of {len(view.shape)} dimensions")
    if view.offset != "0" and not view.shape:
        raise ProgramError(f"{place}: an offset needs a shape")
    _check_expressions(f"{place}: shape", view.shape, MAX_DIMENSIONS)
    _check_expressions(f"{place}: strides", view.strides, MAX_DIMENSIONS)
    _check_expressions(f"{place}: offset", (view.offset,))


def _check_order(plan: Plan) -> None:
    """Calls stand in the order in which they run."""
    least = 0
    for number, call in enumerate(plan.calls, 1):
        place = call_place(number, call.op)
        if not 0 <= call.after <= len(plan.launches):
            raise ProgramError(f"{place}: after = {call.after}, but the plan has {len(plan.launches)} launches")
        if call.after < least:
            raise ProgramError(f"{place}: after = {call.after}, but the call before it stands after launch {least}")
        least = call.after


def _check_overlaps(plan: Plan) -> None:
    """A launch may begin early only behind another launch, and only with a library call neither before nor after it.

    What a call puts on the stream is the library's affair: its kernels may begin early themselves, and wait for nobody.
    A cooperative launch needs all of its blocks at once, while the launch before it still occupies the device.
    """
    between = {call.after for call in plan.calls}
    for number, launch in enumerate(plan.launches, 1):
        if not launch.overlap:
            continue
        place = place_of(number, launch.kernel)
        if launch.cooperative:
            raise ProgramError(f"{place}: a cooperative launch cannot overlap the launch before it")
        if number - 1 in between or number in between:
            raise ProgramError(f"{place}: a launch directly before or after a library call cannot overlap")
        if number == 1:
            raise ProgramError(f"{place}: the first step of a plan has no launch before it to overlap")


def _check_expressions(place: str, texts: tuple[str, ...], most: int = 1) -> None:
    if len(texts) > most:
        raise ProgramError(f"{place}: {len(texts)} entries; {most} is the limit")
    for index, text in enumerate(texts):
        try:
            parse(text)
        except ExpressionError as error:
            entry = f"{place}[{index}]" if most > 1 else place
            raise ExpressionError(f"{entry}: {error.message}") from error
