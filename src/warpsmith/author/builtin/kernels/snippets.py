"""Pieces of CUDA that kernels share. They are pasted into a program's source where it uses them."""

from __future__ import annotations

from collections.abc import Mapping

SNIPPETS: Mapping[str, str] = {
    "Vec": """// N neighbouring elements, moved in one access.
template <typename T, int N> struct alignas(sizeof(T) * N) Vec { T at[N]; };""",
}
