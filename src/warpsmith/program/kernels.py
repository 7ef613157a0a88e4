"""Which kernels a build defines and what they take, read from its PTX; and whether a bound plan fits them.

    .visible .entry row_softmax(
        .param .u64 row_softmax_param_0,
        .param .u32 row_softmax_param_1
    )
    .maxntid 256, 1, 1
    {
        ld.param.u64        %rd1, [row_softmax_param_0];
        cvta.to.global.u64  %rd2, %rd1;

PTX keeps of a parameter its size and kind. Pointers are marked `.ptr` for Blackwell only; elsewhere a 64-bit integer
is known to be a pointer if it is converted to an address, and may be one if not. What it points to is never known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from warpsmith.program.hints import suggest
from warpsmith.program.validate import place_of
from warpsmith.records import BoundLaunch, BoundPlan, Build, KernelResources

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*(?:\(([^)]*)\))?([^{]*)\{(.*?)(?=\.entry|\Z)", re.DOTALL)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.(?P<type>[a-z]\d{1,3})(?P<pointer>\s+\.ptr)?"
    r"[^,\[]*?(?P<name>[\w$]+)(?:\[(?P<bytes>\d{1,9})\])?\s*\Z"
)
_LOADED = re.compile(r"ld\.param\.[bus]64\s+(%\w+), \[([\w$]+)\]")
_ADDRESS = re.compile(r"cvta\.to\.\w+\.u64\s+%\w+, (%\w+)")
_THREADS = re.compile(r"\.(maxntid|reqntid)\s+(\d{1,9}[\d,\s]*)")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a kernel: PTX type, such as `u32`, `f32` or `b8`, size, and whether it is surely a pointer."""

    type: str
    bytes: int
    is_pointer: bool

    @property
    def may_be_pointer(self) -> bool:
        """Whether a tensor can be passed here."""
        return self.is_pointer or (self.bytes == 8 and self.type in ("u64", "s64", "b64"))

    @property
    def is_struct(self) -> bool:
        """Whether it is passed by value in memory: a struct or an array, which no plan can give."""
        return self.type == "b8" and not self.is_pointer

    def __str__(self) -> str:
        if self.is_pointer:
            return "a pointer"
        if self.is_struct:
            return f"a struct of {self.bytes} bytes"
        if self.may_be_pointer:
            return "an integer or pointer of 64 bits"
        kind = {"u": "an integer", "s": "an integer", "f": "a floating-point number", "b": "a number"}[self.type[0]]
        return f"{kind} of {8 * self.bytes} bits"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that a build defines. `max_threads` and `threads` are its launch bounds, if it states any."""

    name: str
    parameters: tuple[Parameter, ...]
    max_threads: int | None = None
    threads: int | None = None


def kernels_in(ptx: str) -> Mapping[str, Kernel]:
    """Return every kernel that `ptx` defines, by name."""
    return {match[1]: _kernel(*match.groups(default="")) for match in _ENTRY.finditer(_COMMENT.sub(" ", ptx))}


def _kernel(name: str, parameters: str, directives: str, body: str) -> Kernel:
    bounds = {
        match[1]: math.prod(map(int, re.findall(r"\d{1,9}", match[2]))) for match in _THREADS.finditer(directives)
    }
    addresses = {match[1] for match in _ADDRESS.finditer(body)}
    pointers = {match[2] for match in _LOADED.finditer(body) if match[1] in addresses}
    found = [_parameter(text.strip(), pointers) for text in parameters.split(",") if text.strip()]
    return Kernel(name, tuple(found), bounds.get("maxntid"), bounds.get("reqntid"))


def _parameter(text: str, pointers: set[str]) -> Parameter:
    match = _PARAMETER.match(text)
    if match is None:
        # Inline assembly can write anything here: what cannot be read takes no argument, which `misfits` then says.
        return Parameter("b8", 0, False)
    width = int(match["type"][1:]) // 8
    is_pointer = match["pointer"] is not None or match["name"] in pointers
    return Parameter(match["type"], width * int(match["bytes"] or 1), is_pointer)


def misfits(build: Build, plan: BoundPlan, shared_per_block: int) -> tuple[str, ...]:
    """Return a sentence for everything in which `plan` does not fit the kernels of `build`; empty if it fits.

    Compared are names, the number and kind of arguments, integers with the range of their parameters, blocks with
    launch bounds, and static plus dynamic shared memory with `shared_per_block` (bytes).
    """
    kernels = kernels_in(build.ptx)
    resources = {resource.name: resource for resource in build.resources}
    found: list[str] = []
    for number, launch in enumerate(plan.launches, 1):
        place = place_of(number, launch.kernel)
        kernel = kernels.get(launch.kernel)
        if kernel is None:
            found.append(f"{place}: {_unknown_kernel(launch.kernel, kernels)}")
            continue
        found.extend(f"{place}: {message}" for message in _argument_misfits(kernel, launch))
        found.extend(f"{place}: {message}" for message in _thread_misfits(kernel, launch))
        resource = resources.get(launch.kernel)
        if resource is not None:
            found.extend(f"{place}: {message}" for message in _shared_misfits(resource, launch, shared_per_block))
    return tuple(found)


def _unknown_kernel(name: str, kernels: Mapping[str, Kernel]) -> str:
    mangled = [known for known in kernels if re.match(rf"_Z\d+{re.escape(name)}(?![a-z])", known)]
    if mangled:
        return f'kernel {name!r} is not declared extern "C"; its C++ name is {mangled[0]!r}'
    if not kernels:
        return f'kernel {name!r} is not defined; the device code has no extern "C" __global__ function'
    return f"kernel {name!r} is not defined{suggest(name, kernels)}"


def _argument_misfits(kernel: Kernel, launch: BoundLaunch) -> Iterable[str]:
    taken, given = len(kernel.parameters), len(launch.args)
    if taken != given:
        yield f"{kernel.name} takes {taken} {'argument' if taken == 1 else 'arguments'}, the plan gives {given}"
        return
    for number, (parameter, argument) in enumerate(zip(kernel.parameters, launch.args), 1):
        if parameter.is_struct:
            yield f"parameter {number} is {parameter}; a plan gives tensors, buffers and numbers only"
        elif isinstance(argument, str) and not parameter.may_be_pointer:
            yield f"argument {number} is the tensor {argument!r}, but the parameter is {parameter}"
        elif isinstance(argument, int) and parameter.is_pointer:
            yield f"argument {number} is the number {argument}, but the parameter is a pointer"
        elif isinstance(argument, int) and not _holds(parameter, argument):
            yield f"argument {number} is {argument}, which does not fit {parameter}"


def _holds(parameter: Parameter, value: int) -> bool:
    """PTX does not keep signedness, so both the signed and the unsigned range count."""
    if parameter.type.startswith("f"):
        return True
    bits = 8 * parameter.bytes
    return -(1 << (bits - 1)) <= value < 1 << bits


def _thread_misfits(kernel: Kernel, launch: BoundLaunch) -> Iterable[str]:
    threads = math.prod(launch.block)
    if kernel.max_threads is not None and threads > kernel.max_threads:
        yield f"block {list(launch.block)} has {threads} threads, but __launch_bounds__ allows {kernel.max_threads}"
    if kernel.threads is not None and threads != kernel.threads:
        yield f"block {list(launch.block)} has {threads} threads, but the kernel requires {kernel.threads}"


def _shared_misfits(resource: KernelResources, launch: BoundLaunch, limit: int) -> Iterable[str]:
    total = resource.shared + launch.shared
    if total > limit:
        yield (
            f"{resource.shared} bytes of static and {launch.shared} bytes of dynamic shared memory; "
            f"{limit} bytes are the limit"
        )


_VARIABLE = re.compile(
    r"^\s*(?:\.visible\s+|\.weak\s+|\.common\s+)?\.(?:global|const)\s[^;={]*?([\w$]+)(?:\[\d*\])*\s*[=;]", re.M
)
_EXTERNAL = re.compile(r"\.extern\s+\.func\s*(?:\([^)]*\)\s*)?([\w$]+)")


def variables_in(ptx: str) -> list[str]:
    """Return the names of the module's variables: all memory of a program that outlives a call."""
    return [match[1] for match in _VARIABLE.finditer(_COMMENT.sub(" ", ptx))]


def externals_in(ptx: str) -> set[str]:
    """Return the names of functions that the device code calls and does not define, such as `malloc`."""
    return {match[1] for match in _EXTERNAL.finditer(_COMMENT.sub(" ", ptx))}
