"""Names that Python, CUDA C++ and launch plans all accept."""

from __future__ import annotations

import keyword
import re

_CPP = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class compl
    concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete
    do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires return short signed sizeof static static_assert static_cast struct switch template this thread_local throw
    true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
    half __half __nv_bfloat16 NULL NAN INFINITY min max abs threadIdx blockIdx blockDim gridDim warpSize
"""
_PYTHON = "torch F model float int bool abs min max sum slice tuple list range print inf nan"
_PLAN = "sm_count ceil_div align_up symbols tunables buffers launch"
RESERVED = frozenset(_CPP.split()) | frozenset(_PYTHON.split()) | frozenset(_PLAN.split()) | frozenset(keyword.kwlist)


class Names:
    """Hands out identifiers, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set(RESERVED)

    def take(self, wish: str) -> str:
        """Return `wish` made an identifier, with `_1`, `_2` and so on appended where it is taken or reserved."""
        base = re.sub(r"\W", "_", wish, flags=re.ASCII).strip("_") or "value"
        if base[0].isdigit():
            base = f"layer_{base}"
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name
