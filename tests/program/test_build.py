"""Building: what comes out, what is said of refused code, and that hostile or endless code is stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from warpsmith.errors import CompilerUnavailable, ProgramError, SettingsError
from warpsmith.program import Builder, worker
from warpsmith.program.diagnostics import parse_diagnostics
from warpsmith.program.includes import screen_includes
from warpsmith.records import Build, KernelResources, Launch, Plan, Program

COPY = 'extern "C" __global__ void copy(const float* x, float* out, int n) {\n  int i = threadIdx.x;\n  if (i < n) out[i] = x[i];\n}\n'


def program(source: str, *, tunables: dict[str, tuple[int, ...]] | None = None, flags: tuple[str, ...] = ()) -> Program:
    return Program(source, Plan((), tuple((tunables or {}).items()), (), (), flags))


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    with Builder(tmp_path_factory.mktemp("cache"), timeout_s=60) as shared:
        yield shared


def build(builder: Builder, source: str, architecture: str = "sm_90") -> Build:
    return builder.build(program(source), {}, architecture)


def only_error(built: Build) -> tuple[int, int, str]:
    assert not built.ok
    assert built.ptx == ""
    assert built.cubin == b""
    error = built.diagnostics[0]
    assert error.severity == "error"
    return error.line, error.column, error.message


# ------------------------------------------------------------------------------------------------------ what comes out


def test_a_kernel_becomes_ptx_with_source_lines_and_machine_code(builder: Builder) -> None:
    built = build(builder, COPY)
    assert built.ok
    assert built.diagnostics == ()
    assert ".visible .entry copy(" in built.ptx
    assert ".loc\t1 3 " in built.ptx
    assert built.ptx.isprintable() or "\0" not in built.ptx
    assert built.cubin.startswith(b"\x7fELF")
    assert built.architecture == "sm_90"


@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90a", "sm_100"])
def test_every_architecture_of_the_catalogue_gives_both(builder: Builder, architecture: str) -> None:
    built = build(builder, COPY, architecture)
    assert f".target {architecture}" in built.ptx
    assert built.cubin.startswith(b"\x7fELF")


def test_resources_are_what_the_assembler_reports(builder: Builder) -> None:
    source = """
    extern "C" __global__ void tile(float* x) {
      __shared__ float a[1000];
      a[threadIdx.x] = x[threadIdx.x];
      __syncthreads();
      x[threadIdx.x] = a[999 - threadIdx.x];
    }
    extern "C" __global__ void local(float* x, int k) {
      float a[100];
      for (int i = 0; i < 100; i++) a[i] = x[i] * i;
      x[k] = a[k];
    }
    """
    local, tile = build(builder, source).resources
    assert isinstance(tile, KernelResources)
    assert (tile.name, tile.shared, tile.stack, tile.spill_stores) == ("tile", 4000, 0, 0)
    assert (local.name, local.shared, local.stack) == ("local", 0, 400)
    assert 4 <= tile.registers < local.registers <= 255


def test_max_registers_makes_the_kernel_spill(builder: Builder) -> None:
    source = """
    extern "C" __global__ void greedy(const float* x, float* out) {
      float a[48];
      #pragma unroll
      for (int i = 0; i < 48; i++) a[i] = x[i * 1024 + threadIdx.x];
      __syncthreads();
      #pragma unroll
      for (int i = 0; i < 48; i++) out[i * 1024 + threadIdx.x] = a[i] * a[47 - i];
    }
    """
    launch = Launch("greedy", ("1",), ("32",), (), max_registers=24)
    tight = builder.build(Program(source, Plan((), (), (), (launch,))), {}, "sm_90").resources[0]
    free = build(builder, source).resources[0]
    assert tight.registers <= 24 < free.registers
    assert free.spill_stores == 0 < tight.spill_stores


def test_launches_must_agree_on_max_registers(builder: Builder) -> None:
    launches = tuple(Launch("copy", ("1",), ("32",), (), max_registers=limit) for limit in (32, 64))
    with pytest.raises(ProgramError, match="differ in max_registers"):
        builder.build(Program(COPY, Plan((), (), (), launches)), {}, "sm_90")


def test_tunables_are_constants_of_the_device_code(builder: Builder) -> None:
    source = 'extern "C" __global__ void k(long long* x) { static_assert(A < 0 && B > 4000000000); x[0] = A * 2; }'
    tuned = program(source, tunables={"A": (-21, 4), "B": (5_000_000_000,)})
    built = builder.build(tuned, {"A": -21, "B": 5_000_000_000}, "sm_90")
    assert built.ok, built.diagnostics
    assert "-42" in built.ptx
    assert not builder.build(tuned, {"A": 4, "B": 5_000_000_000}, "sm_90").ok
    for wrong in ({}, {"A": 4}, {"A": 4, "B": 5_000_000_000, "C": 1}, {"A": 5, "B": 5_000_000_000}):
        with pytest.raises(ProgramError, match="tunable"):
            builder.build(tuned, wrong, "sm_90")


def test_flags_reach_the_compiler_and_others_are_refused(builder: Builder) -> None:
    source = 'extern "C" __global__ void k(float* x) { x[0] = x[1] / x[2]; }'
    exact = builder.build(program(source), {}, "sm_90")
    fast = builder.build(program(source, flags=("-use_fast_math",)), {}, "sm_90")
    assert "div.rn.f32" in exact.ptx
    assert "div.approx.ftz.f32" in fast.ptx
    with pytest.raises(ProgramError, match="allow-list"):
        builder.build(program(source, flags=("--include-path=/",)), {}, "sm_90")


def test_what_nvrtc_lacks_of_the_c_headers_is_there(builder: Builder) -> None:
    source = """
    #include <cuda_runtime.h>
    #include <cstdint>
    #include <cfloat>
    #include <math.h>
    constexpr float lowest = -INFINITY;
    static_assert(sizeof(int64_t) == 8 && sizeof(uint8_t) == 1 && INT_MIN < -INT_MAX && FLT_MAX > 3e38f);
    static_assert(LLONG_MAX == INT64_MAX && UINT32_MAX == 4294967295u && M_PI > 3.14 && DBL_EPSILON < 1e-15);
    extern "C" __global__ void k(float* x) { x[0] = lowest; x[1] = NAN; x[2] = (float)HUGE_VAL; }
    """
    built = build(builder, source)
    assert built.ok, built.diagnostics
    assert built.diagnostics == ()
    assert "-8388608" in built.ptx or "0xff800000" in built.ptx.lower() or "fFF800000" in built.ptx


@pytest.mark.parametrize(
    "header",
    [
        "cuda_fp16.h",
        "cuda_bf16.h",
        "cooperative_groups.h",
        "mma.h",
        "cuda/std/cstdint",
        "cuda/std/limits",
        "cuda/std/cmath",
    ],
)
def test_headers_of_the_wheels_can_be_included_beside_the_prelude(builder: Builder, header: str) -> None:
    built = build(builder, f"#include <{header}>\n{COPY}")
    assert built.ok, built.diagnostics
    assert built.diagnostics == ()


# ---------------------------------------------------------------------------------------------------- what is refused


def test_errors_have_the_line_and_column_of_the_users_text(builder: Builder) -> None:
    assert only_error(build(builder, COPY.replace("x[i]", "y[i]"))) == (3, 23, 'identifier "y" is undefined')


def test_a_tab_counts_as_one_column(builder: Builder) -> None:
    line, column, message = only_error(build(builder, COPY.replace("  if", "\t\tif").replace("x[i]", "\ty")))
    assert (line, column, message) == (3, 24, 'identifier "y" is undefined')


def test_errors_say_what_was_tried_and_where_a_template_was_used(builder: Builder) -> None:
    overload = '#include <cuda_fp16.h>\nextern "C" __global__ void k(__half* x) { x[0] = __hadd(x[1], "x"); }'
    line, column, message = only_error(build(builder, overload))
    assert (line, column) == (2, 50)
    assert message.endswith("matches the argument list argument types are: (__half, const char [2])")
    template = """template <typename T> __device__ void f(T t) { t.foo(); }
extern "C" __global__ void k(float* x) {
  f(x[0]);
}"""
    line, column, message = only_error(build(builder, template))
    assert (line, column) == (1, 48)
    assert 'instantiation of "void f(T) [with T=float]" at line 3' in message


def test_an_error_inside_a_header_names_the_line_that_led_there(builder: Builder) -> None:
    source = """#include <cuda/std/array>
extern "C" __global__ void k(int* x) {
  cuda::std::array<int, 3> a{};
  x[0] = cuda::std::get<5>(a);
}"""
    line, _, message = only_error(build(builder, source))
    assert line == 4
    assert message.startswith("cuda/std/")
    assert "Index out of bounds" in message


def test_warnings_are_kept_beside_a_build_that_succeeded(builder: Builder) -> None:
    built = build(builder, COPY.replace("int i", "int unused; int i"))
    assert built.ok
    (warning,) = built.diagnostics
    assert (warning.severity, warning.line, warning.column) == ("warning", 2, 7)
    assert "unused" in warning.message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "__shared__ float a[20000]; a[threadIdx.x] = x[1]; __syncthreads(); x[0] = a[x[2] > 0];",
            "too much shared data",
        ),
        ('asm volatile("frobnicate.f32 %0;" :: "f"(x[0]));', "frobnicate"),
    ],
)
def test_errors_of_the_assembler_are_reported(builder: Builder, source: str, message: str) -> None:
    built = build(builder, f'extern "C" __global__ void k(float* x) {{ {source} }}')
    assert not built.ok
    assert any(message in diagnostic.message for diagnostic in built.diagnostics)


def test_host_code_is_refused(builder: Builder) -> None:
    for source in ("int main() { return 0; }", "int counter;", 'extern "C" __host__ void f() {}'):
        assert not build(builder, source).ok


def test_a_virtual_architecture_gives_the_same_ptx_and_no_machine_code(builder: Builder) -> None:
    virtual, real = (build(builder, COPY, name) for name in ("compute_90", "sm_90"))
    assert virtual.ok and virtual.ptx == real.ptx
    assert virtual.cubin == b"" and virtual.resources == () and real.resources


def test_unknown_architectures_are_the_callers_mistake(builder: Builder) -> None:
    for architecture in ("sm_35", "sm_90 -I/", "compute_35", "hopper"):
        with pytest.raises(SettingsError, match="does not compile for"):
            build(builder, COPY, architecture)


def test_unreasonable_limits_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="builds cannot be kept in"):
        Builder(tmp_path / "file")
    with pytest.raises(SettingsError, match="time limit"):
        Builder(tmp_path, timeout_s=0)
    with pytest.raises(SettingsError, match="512 MiB"):
        Builder(tmp_path, memory_mb=16)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('#include "/etc/passwd"', "is no header of the CUDA wheels"),
        ("#include </etc/passwd>", "is no header of the CUDA wheels"),
        ('#include "../../../../../../../../etc/passwd"', "is no header of the CUDA wheels"),
        ('#include "etc/passwd"', "is no header of the CUDA wheels"),
        ('#  /* x */ include /* y */ "/etc/passwd" // z', "is no header of the CUDA wheels"),
        ('#inc\\\nlude "/etc/passwd"', "is no header of the CUDA wheels"),
        ('%:include "/etc/passwd"', "is no header of the CUDA wheels"),
        ('const char* s = R"(\n)"; /* " */\n#include "/etc/passwd"', "is no header of the CUDA wheels"),
        ('#define FILE "/etc/passwd"\n#include FILE', "needs the literal name"),
        ('#include_next "/etc/passwd"', "#include_next is not available"),
        ('#if __has_include("/etc/passwd")\n#endif', "__has_include is not available"),
        ('#if 0\nR"(\n#endif\n#include "/etc/passwd"', "is no header of the CUDA wheels"),
        ("#include <kernel.cu>", "is no header of the CUDA wheels"),
        ("int a;\0int b;", "NUL character"),
    ],
)
def test_files_of_the_machine_cannot_be_included(builder: Builder, source: str, message: str) -> None:
    assert message in only_error(build(builder, source))[2]


@pytest.mark.parametrize(
    "source",
    [
        '// #include "/etc/passwd"\n',
        '/* \n#include "/etc/passwd"\n*/\n',
        '__device__ const char* s = "\\\n#include <x>";\n',
        '__device__ const char* s = R"x(\n#include "/etc/passwd"\n)x";\n',
        "#define include_count 3\n",
    ],
)
def test_the_screen_lets_harmless_text_pass(builder: Builder, source: str) -> None:
    built = build(builder, source + COPY)
    assert built.ok, built.diagnostics


@pytest.mark.parametrize("piece", ['"",', "/**/", 'R"a(', "'", '"', "\\\n", "#include", "/"])
def test_the_screen_is_not_slowed_down_by_long_texts(piece: str) -> None:
    # Quadratic work on a text of this length would exceed the test's time limit many times over.
    assert isinstance(screen_includes(piece * (900_000 // len(piece)), ()), tuple)


def test_the_line_of_a_refused_include_counts_spliced_lines_and_comments(builder: Builder) -> None:
    source = '#define A \\\n  1\n/* two\nlines */\nconst char* s = "a\\\nb";\n#include "/etc/passwd"\n'
    assert only_error(build(builder, source))[0] == 7


def test_a_text_that_deceives_the_screen_still_cannot_read_files() -> None:
    compiler = worker.CompilerProcess(timeout_s=60, memory_mb=4096)
    try:
        compiler.start()
        if not compiler.hello["confined"]:
            pytest.skip("this kernel has no Landlock")
        secret = Path(__file__).resolve()
        compiled = compiler.compile(f'#include "{secret}"\n', {}, ["--gpu-architecture=sm_90"])
        assert not compiled.ok
        assert "cannot open source file" in compiled.log
        assert "what comes out" not in compiled.log
    finally:
        compiler.close()


CONFINED = """
import runpy, socket, sys
compiler = runpy.run_path(sys.argv[1])
if not compiler["confine"]([sys.argv[2]]):
    sys.exit("no Landlock")
print(open(sys.argv[2] + "/header.h").read())
for attempt in (
    lambda: open(sys.argv[3]),
    lambda: open(sys.argv[2] + "/new.h", "w"),
    lambda: socket.create_connection(("127.0.0.1", int(sys.argv[4]))),
):
    try:
        attempt()
    except PermissionError:
        print("denied")
"""


def test_the_compiler_process_may_read_headers_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "headers").mkdir()
    (tmp_path / "headers" / "header.h").write_text("header")
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        paths = [worker.__file__.replace("worker.py", "compiler.py"), tmp_path / "headers", tmp_path / "secret", port]
        command = [sys.executable, "-c", CONFINED, *map(str, paths)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if "no Landlock" in ended.stderr:
        pytest.skip("this kernel has no Landlock")
    assert ended.stdout.split() == ["header", "denied", "denied", "denied"], ended.stderr


# -------------------------------------------------------------------------------------------------------------- limits

ENDLESS = """
template <int N, int M> struct F { static constexpr long value = F<N - 1, M>::value + F<N - 1, M + N>::value; };
template <int M> struct F<0, M> { static constexpr long value = M; };
extern "C" __global__ void k(long* x) { x[0] = F<60, 0>::value; }
"""


HUGE = "#define A(x) x x x x x x x x x x\n" + "A(" * 12 + "int a;" + ")" * 12
"""Ten to the twelfth declarations."""


def test_a_compile_bomb_is_stopped_in_time_and_the_next_program_builds(tmp_path: Path) -> None:
    with Builder(tmp_path, timeout_s=1.5) as builder:
        started = time.monotonic()
        built = build(builder, ENDLESS)
        assert time.monotonic() - started < 15
        assert "stopped after 1.5 s" in only_error(built)[2]
        assert build(builder, COPY).ok
        assert list(tmp_path.glob("*/*.build")) == [tmp_path / path for path in [_entry(builder, COPY)]]


def _entry(builder: Builder, source: str) -> Path:
    key = build(builder, source).key
    return Path(key[:2]) / f"{key}.build"


def test_a_memory_bomb_is_stopped_and_the_next_program_builds(tmp_path: Path) -> None:
    with Builder(tmp_path, timeout_s=60, memory_mb=512) as builder:
        built = build(builder, HUGE)
        assert "memory" in only_error(built)[2]
        assert build(builder, COPY).ok


def test_a_compiler_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with Builder(tmp_path) as builder:
        assert build(builder, COPY).ok
        process = builder._compiler._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert build(builder, COPY + "// again").ok


def test_closing_leaves_no_process_behind(tmp_path: Path) -> None:
    builder = Builder(tmp_path)
    assert build(builder, COPY).ok
    process = builder._compiler._process
    assert process is not None
    builder.close()
    assert process.returncode is not None
    assert build(builder, COPY).ok, "the cache answers without a compiler"


def test_secrets_of_the_environment_do_not_reach_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    with Builder(tmp_path) as builder:
        build(builder, COPY)
        process = builder._compiler._process
        assert process is not None
        assert b"hunter2" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_missing_headers_are_named_with_the_packages_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with Builder(tmp_path) as builder, pytest.raises(CompilerUnavailable, match="pip install nvidia-cuda-runtime"):
        build(builder, COPY)


# --------------------------------------------------------------------------------------------------------------- cache


def test_the_same_program_is_compiled_once(tmp_path: Path) -> None:
    with Builder(tmp_path) as first:
        built = build(first, COPY)
    with Builder(tmp_path) as second:
        assert build(second, COPY) == built
        assert second._compiler._process is None


def test_refusals_are_remembered_too(tmp_path: Path) -> None:
    with Builder(tmp_path) as first:
        refused = build(first, "oops")
    with Builder(tmp_path) as second:
        assert build(second, "oops") == refused
        assert second._compiler._process is None


def test_everything_that_changes_the_result_changes_the_key(builder: Builder) -> None:
    source = COPY.replace("n)", "n)", 1)
    tuned = program(source, tunables={"A": (1, 2)})
    keys = {
        builder.build(program(source), {}, "sm_90").key,
        builder.build(program(source), {}, "sm_80").key,
        builder.build(program(source + " "), {}, "sm_90").key,
        builder.build(program(source, flags=("--fmad=false",)), {}, "sm_90").key,
        builder.build(tuned, {"A": 1}, "sm_90").key,
        builder.build(tuned, {"A": 2}, "sm_90").key,
    }
    assert len(keys) == 6


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "foreign"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    with Builder(tmp_path) as builder:
        built = build(builder, COPY)
        (path,) = tmp_path.glob("*/*.build")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes({"cut": data[:-9], "flipped": data, "emptied": b"", "foreign": b"\x80\x04pickle"}[damage])
        again = build(builder, COPY)
        assert (again.ptx, again.cubin, again.resources) == (built.ptx, built.cubin, built.resources)
        assert builder._cache.load(built.key, "another identity") is None


def test_threads_may_share_a_builder(tmp_path: Path) -> None:
    sources = [COPY.replace("copy", f"copy{number}") for number in range(4)]
    built: dict[str, Build] = {}
    with Builder(tmp_path) as builder:
        threads = [
            threading.Thread(target=lambda source=source: built.update({source: build(builder, source)}))
            for source in sources
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, source in enumerate(sources):
        assert f".entry copy{number}(" in built[source].ptx


def test_what_the_assembler_says_of_lost_performance_is_a_warning() -> None:
    log = (
        "ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized due to "
        "non wgmma instructions reading accumulator registers in the function 'k'\n"
        "ptxas info    : Used 37 registers, used 1 barriers\n"
    )
    (found,) = parse_diagnostics(log)
    assert found.severity == "warning"
    assert found.message.startswith("ptxas: (C7514) Potential Performance Loss: wgmma")
