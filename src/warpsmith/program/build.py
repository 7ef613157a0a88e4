"""Programs into PTX and machine code: NVRTC in a process of its own, remembered by hash.

A program that the compiler refuses, or on which it takes too long or too much memory, is a `Build` that is not `ok`,
with diagnostics; an exception means that there is no working compiler here.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Self

from warpsmith.errors import ProgramError, SettingsError
from warpsmith.program.cache import BuildCache
from warpsmith.program.diagnostics import parse_diagnostics, parse_resources
from warpsmith.program.flags import canonical_flags
from warpsmith.program.includes import EMPTY_HEADERS, screen_includes
from warpsmith.program.validate import check_tunables
from warpsmith.program.worker import Compiled, CompilerProcess, header_directories, nvrtc_version
from warpsmith.records import Build, Diagnostic, Program, digest

MAX_SOURCE_LENGTH = 1_000_000
"""Characters of device code."""

_PRELUDE_NAME = "warpsmith_prelude.cuh"
_ARCHITECTURE = re.compile(r"(?:sm|compute)_(\d+)[af]?")


class Builder:
    """Builds programs for one compiler process and one cache folder.

    `timeout_s` limits one compilation, `memory_mb` the data of the compiler process. Any number of builders,
    in any processes, may share `cache_dir`; one builder may be used from several threads, which then take turns.
    Use as a context manager, or call `close`.
    """

    def __init__(self, cache_dir: str | Path, timeout_s: float = 60.0, memory_mb: int = 4096) -> None:
        if not timeout_s > 0:
            raise SettingsError(f"the compiler's time limit must be positive, not {timeout_s}")
        if memory_mb < 512:
            raise SettingsError(f"the compiler needs at least 512 MiB of memory, not {memory_mb}")
        self._cache = BuildCache(Path(cache_dir))
        self._compiler = CompilerProcess(timeout_s, memory_mb)
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the compiler process. The builder may be used again; it then starts another."""
        with self._turn:
            self._compiler.close()

    def build(self, program: Program, tunables: Mapping[str, int], architecture: str) -> Build:
        """Compile `program` with a value for each tunable for an architecture such as `sm_90`.

        For `compute_90` only PTX is made, in about half the time: there is no machine code, and nobody knows what the
        kernels need.

        Raises ProgramError for values or flags that the plan does not allow, SettingsError for an architecture that
        this compiler does not know, CompilerUnavailable if NVRTC or its headers are missing.
        """
        options = compile_options(program, tunables, architecture)
        identity = json.dumps([program.source, options, architecture, self._toolchain])
        key = digest("build", identity)
        with self._cache.lock(key):
            known = self._cache.load(key, identity)
            if known is not None:
                return known
            build, lasting = self._compile(program.source, options, key, architecture)
            if lasting:
                self._cache.store(build, identity)
        return build

    @cached_property
    def _toolchain(self) -> str:
        """Everything besides program and options that a build depends on."""
        return digest(nvrtc_version(), json.dumps(self._headers))

    @cached_property
    def _headers(self) -> dict[str, str]:
        prelude = resources.files("warpsmith.program").joinpath("prelude.cuh").read_text(encoding="utf-8")
        return {_PRELUDE_NAME: prelude, **dict.fromkeys(EMPTY_HEADERS, "\n")}

    def _compile(self, source: str, options: list[str], key: str, architecture: str) -> tuple[Build, bool]:
        """Return the build, and whether it would come out the same again."""
        directories = header_directories()
        refused = screen_source(source, directories)
        if refused:
            return Build(key, architecture, False, "", b"", (), refused, 0.0), True
        started = time.perf_counter()
        with self._turn:
            self._compiler.start()
            self._check_architecture(architecture)
            paths = [f"--include-path={directory}" for directory in directories]
            compiled = self._compiler.compile(source, self._headers, options + paths)
        seconds = time.perf_counter() - started
        return _build_of(compiled, key, architecture, seconds), compiled.stopped is None

    def _check_architecture(self, architecture: str) -> None:
        known = self._compiler.hello["architectures"]
        match = _ARCHITECTURE.fullmatch(architecture)
        if match is None or int(match[1]) not in known:
            names = ", ".join(f"sm_{number}" for number in known)
            raise SettingsError(f"this NVRTC does not compile for {architecture!r}; it knows {names}")


def compile_options(program: Program, tunables: Mapping[str, int], architecture: str) -> list[str]:
    """Return NVRTC's options for a program, without include paths.

    Raises ProgramError where the tunables are not those of the plan, a flag is not allowed, or two launches differ in
    `max_registers`: NVRTC has one limit for a whole program.
    """
    plan = program.plan
    check_tunables(plan, tunables)
    flags = canonical_flags(plan.flags)
    limits = {launch.max_registers for launch in plan.launches if launch.max_registers is not None}
    if len(limits) > 1:
        raise ProgramError(
            f"launches differ in max_registers ({', '.join(map(str, sorted(limits)))}), but the limit is one for the "
            "whole program; write __launch_bounds__ or __maxnreg__ in the device code instead"
        )
    return [
        f"--gpu-architecture={architecture}",
        *(() if any(flag.startswith("--std=") for flag in flags) else ("--std=c++17",)),
        "--generate-line-info",
        "--ptxas-options=-v",
        f"--pre-include={_PRELUDE_NAME}",
        *(f"--define-macro={name}={f'({value})' if value < 0 else value}" for name, value in sorted(tunables.items())),
        *flags,
        *(f"--maxrregcount={limit}" for limit in limits),
    ]


def screen_source(source: str, directories: tuple[Path, ...]) -> tuple[Diagnostic, ...]:
    """Return errors for what the compiler is not even shown: oversized or unprintable text, foreign includes."""
    if len(source) > MAX_SOURCE_LENGTH:
        message = f"the device code has {len(source)} characters; {MAX_SOURCE_LENGTH} is the limit"
        return (Diagnostic("error", 0, 0, message),)
    if "\0" in source:
        line = source.count("\n", 0, source.index("\0")) + 1
        return (Diagnostic("error", line, 1, "the device code holds a NUL character"),)
    return screen_includes(source, directories)


def _build_of(compiled: Compiled, key: str, architecture: str, seconds: float) -> Build:
    diagnostics = parse_diagnostics(compiled.log)
    if compiled.stopped is not None:
        diagnostics = (Diagnostic("error", 0, 0, compiled.stopped),)
    elif not compiled.ok and not any(diagnostic.severity == "error" for diagnostic in diagnostics):
        message = compiled.log.strip()[:600] or "the compiler refused the program without a message"
        diagnostics = (Diagnostic("error", 0, 0, message), *diagnostics)
    kernels = parse_resources(compiled.log) if compiled.ok else ()
    return Build(key, architecture, compiled.ok, compiled.ptx, compiled.cubin, kernels, diagnostics, seconds)
