"""The screen of `#include` lines: a program may include headers of the CUDA wheels, and nothing else.

This is a trip-wire that gives a clear message, not the gate. It follows the first translation phases of C++ (spliced
lines, comments, string literals), so that ordinary code is judged rightly; code that is written to deceive it meets
the compiler process, which cannot open other files (see compiler.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from warpsmith.records import Diagnostic

# Headers that NVRTC lacks or does not need: everything that device code uses of them is in the prelude.
EMPTY_HEADERS: Final[tuple[str, ...]] = (
    "cassert",
    "cfloat",
    "climits",
    "cmath",
    "cstddef",
    "cstdint",
    "cstdlib",
    "cuda_runtime.h",
    "float.h",
    "limits.h",
    "math.h",
    "stddef.h",
    "stdint.h",
    "stdio.h",
    "stdlib.h",
)

_SPLICE = "\x01"
_LEXEME = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?(?:\*/|\Z))"""
    r"""|(?P<raw>\bu?8?[LU]?R"(?P<mark>[^()\\\s]{0,16})\((?:.*?\)(?P=mark)"|(?P<open>.*\Z)))"""
    r"""|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<newline>\n)""",
    re.DOTALL,
)
_DIRECTIVE = re.compile(r"\s*(?:\#|%:|\?\?=)\s*(?P<name>\w+)\s*(?P<rest>.*)", re.DOTALL)
_TARGET = re.compile(r"""(?:<(?P<angle>[^>\n]+)>|"(?P<quote>[^"\n]+)")\s*\Z""")
_PROBING = re.compile(r"\b__has_(?:include|include_next|embed)\b")


def screen_includes(source: str, directories: tuple[Path, ...]) -> tuple[Diagnostic, ...]:
    """Return an error for every directive that would bring in a file other than a header below `directories`."""
    found: list[Diagnostic] = []
    for line, text in _logical_lines(source):
        probing = _PROBING.search(text)
        if probing:
            found.append(_error(line, f"{probing.group()} is not available to a program"))
        directive = _DIRECTIVE.match(text)
        if directive is None or directive["name"] not in ("include", "include_next", "embed", "import"):
            continue
        if directive["name"] != "include":
            found.append(_error(line, f"#{directive['name']} is not available to a program"))
            continue
        target = _TARGET.match(directive["rest"].strip())
        if target is None:
            found.append(_error(line, "#include needs the literal name of a header"))
            continue
        name = target["angle"] or target["quote"]
        if not _is_header(name, directories):
            found.append(_error(line, f"{name!r} is no header of the CUDA wheels; a program may include no other file"))
    return tuple(found)


def _error(line: int, message: str) -> Diagnostic:
    return Diagnostic("error", line, 1, message)


def _is_header(name: str, directories: tuple[Path, ...]) -> bool:
    if name in EMPTY_HEADERS:
        return True
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or len(name) > 200:
        return False
    return any((directory / path).is_file() for directory in directories)


def _logical_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield (1-based number of the first physical line, text), without comments, with spliced lines joined.

    A string literal stays in its line only if that begins with `#`; elsewhere its contents cannot matter.
    """
    # A splice becomes a mark, so that physical lines can still be counted.
    text = source.replace("\r\n", "\n").replace("\r", "\n").replace("\\\n", _SPLICE)
    line = start_line = 1
    current: list[str] = []
    position = 0
    is_directive: bool | None = None
    for lexeme in _LEXEME.finditer(text):
        before, token = text[position : lexeme.start()], lexeme.group()
        position = lexeme.end()
        current.append(before.replace(_SPLICE, ""))
        if is_directive is None and current[-1].strip():
            is_directive = current[-1].lstrip().startswith(("#", "%:", "??="))
        line += before.count(_SPLICE) + token.count(_SPLICE) + token.count("\n")
        if lexeme["newline"]:
            yield start_line, "".join(current)
            current, is_directive = [], None
            start_line = line
        elif lexeme["comment"]:
            current.append(" ")
        elif lexeme["open"] is not None:
            # A raw string that never ends: the compiler may see it otherwise, so every line of it counts.
            yield from ((start_line, part) for part in ("".join(current) + token).split("\n"))
            current = []
        else:
            current.append(token.replace(_SPLICE, "") if is_directive else '""')
            is_directive = bool(is_directive)
    current.append(text[position:].replace(_SPLICE, ""))
    yield start_line, "".join(current)
