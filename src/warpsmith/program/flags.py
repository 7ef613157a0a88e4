"""Which compiler flags a plan may give, and how they are written for NVRTC."""

from __future__ import annotations

import re

from warpsmith.errors import ProgramError
from warpsmith.program.hints import suggest

_BOOLEAN = ("fmad", "ftz", "prec-div", "prec-sqrt")
_PLAIN = ("use_fast_math", "extra-device-vectorization", "restrict")
_VALUED = {"std": ("c++17", "c++20"), **dict.fromkeys(_BOOLEAN, ("true", "false"))}

FLAGS: tuple[str, ...] = (
    *(f"--{name}" for name in _PLAIN),
    *(f"--{name}={value}" for name, values in _VALUED.items() for value in values),
)
"""Every flag that a plan may give, in the spelling that NVRTC is given. One leading dash is accepted as well."""


def canonical_flag(flag: str) -> str:
    """Return `flag` as NVRTC is given it. Raises ProgramError if it is not one of `FLAGS`."""
    canonical = re.sub(r"\A--?", "--", flag)
    if canonical not in FLAGS:
        hint = "; write max_registers in a launch" if "maxrregcount" in flag else suggest(canonical, FLAGS)
        raise ProgramError(f"the compiler flag {flag!r} is not on the allow-list{hint}")
    return canonical


def canonical_flags(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return all flags as NVRTC is given them. Raises ProgramError for one not allowed, and for contradictions."""
    canonical = tuple(canonical_flag(flag) for flag in flags)
    seen: dict[str, str] = {}
    for flag in canonical:
        name = flag.partition("=")[0]
        if name in seen:
            raise ProgramError(f"the compiler flag {name} is given twice: {seen[name]!r} and {flag!r}")
        seen[name] = flag
    return canonical
