"""The text form of plans: what is accepted, that nothing is lost on the way, and what is said of mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpsmith.errors import ExpressionError, ProgramError
from warpsmith.program import FLAGS, format_plan, parse_plan, read_program, write_program
from warpsmith.records import DTYPE_BYTES, Buffer, Launch, Plan, Program

SOFTMAX = """
[symbols]
rows = "x.shape[0]"
cols = "x.shape[1]"

[tunables]
BLOCK = [256, 128, 512, 1024]
VEC   = [4, 1, 2]

[buffers.partial]
shape = ["rows", "ceil_div(cols, BLOCK)"]
dtype = "float32"

[[launch]]
kernel = "row_softmax"
grid   = ["rows"]
block  = ["BLOCK"]
shared = "BLOCK * 4"
args   = ["x", "out", "partial", "rows", "cols"]
"""


def test_design_example_is_read_whole() -> None:
    assert parse_plan(SOFTMAX) == Plan(
        symbols=(("rows", "x.shape[0]"), ("cols", "x.shape[1]")),
        tunables=(("BLOCK", (256, 128, 512, 1024)), ("VEC", (4, 1, 2))),
        buffers=(Buffer("partial", ("rows", "ceil_div(cols, BLOCK)"), "float32"),),
        launches=(
            Launch("row_softmax", ("rows",), ("BLOCK",), ("x", "out", "partial", "rows", "cols"), shared="BLOCK * 4"),
        ),
    )


def test_integers_may_be_written_bare_and_every_option_is_read() -> None:
    plan = parse_plan(
        """
        flags = ["--use_fast_math"]
        [[launch]]
        kernel = "k"
        grid = [4, "2", 1]
        block = [128]
        cluster = [2]
        cooperative = true
        max_registers = 64
        shared = 1024
        args = [7, -3]
        """
    )
    launch = Launch("k", ("4", "2", "1"), ("128",), ("7", "-3"), "1024", ("2",), True, 64)
    assert plan == Plan((), (), (), (launch,), ("--use_fast_math",))


# Two underscores in a row are reserved in C++.
names = st.from_regex(r"[a-z]([a-z0-9]|_[a-z0-9]){0,4}[0-9]", fullmatch=True)
texts = st.one_of(
    st.integers(0, 2**63 - 1).map(str),
    st.sampled_from(["sm_count", "x.shape[0] * 2", "ceil_div(x.numel, 256)", " - 1", "007", "max(1,\t2)"]),
)


def tuples(elements: st.SearchStrategy[str], least: int, most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(elements, min_size=least, max_size=most).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    unique = draw(st.lists(names, unique=True, min_size=3, max_size=9))
    symbols, tunables, buffers = unique[0::3], unique[1::3], unique[2::3]
    values = st.lists(st.integers(-(2**62), 2**62), unique=True, min_size=1, max_size=4).map(tuple)
    launch = st.builds(
        Launch,
        kernel=names,
        grid=tuples(texts, 1, 3),
        block=tuples(texts, 1, 3),
        args=tuples(st.one_of(texts, st.sampled_from(unique)), 0, 5),
        shared=texts,
        cluster=tuples(texts, 0, 3),
        cooperative=st.booleans(),
        max_registers=st.one_of(st.none(), st.integers(16, 255)),
    )
    flags = draw(st.lists(st.sampled_from(FLAGS), max_size=3, unique_by=lambda flag: flag.split("=")[0]))
    return Plan(
        symbols=tuple((name, draw(texts)) for name in symbols),
        tunables=tuple((name, draw(values)) for name in tunables),
        buffers=tuple(
            Buffer(name, draw(tuples(texts, 0, 3)), draw(st.sampled_from(sorted(DTYPE_BYTES)))) for name in buffers
        ),
        launches=tuple(draw(st.lists(launch, min_size=1, max_size=3))),
        flags=tuple(flags),
    )


@given(plans())
def test_formatting_loses_nothing(plan: Plan) -> None:
    text = format_plan(plan)
    assert parse_plan(text) == plan
    assert format_plan(parse_plan(text)) == text


@given(st.text(max_size=200))
def test_arbitrary_text_raises_nothing_but_program_errors(text: str) -> None:
    with pytest.raises(ProgramError):
        parse_plan(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[launch]]", "[[lunch]]", "unknown table or key 'lunch'; did you mean 'launch'?"),
        ("[[launch]]", '[[call]]\nop = "aten.mm"\n[[launch]]', "unknown table or key 'call'"),
        ("grid   =", "gird   =", "launch 1: unknown key 'gird'; did you mean 'grid'?"),
        ('dtype = "float32"', 'dtype = "float32"\nalign = 16', "buffers.partial: unknown key 'align'"),
        ('dtype = "float32"', "", "buffers.partial: 'dtype' is missing"),
        ('dtype = "float32"', 'dtype = "flaot32"', "buffers.partial: unknown dtype 'flaot32'; did you mean 'float32'?"),
        ('kernel = "row_softmax"', "", "launch 1: 'kernel' is missing"),
        ('kernel = "row_softmax"', 'kernel = "row softmax"', "'row softmax' is not the name"),
        ('kernel = "row_softmax"', 'kernel = "a\\"b"', "is not the name"),
        ('["rows"]\nblock', "[2.5]\nblock", "launch 1: grid[0]: must be text, or an integer"),
        ('["rows"]\nblock', "[true]\nblock", "launch 1: grid[0]: must be text, or an integer"),
        ('["rows"]\nblock', '"rows"\nblock', "launch 1: grid: should be a valid list"),
        ('["rows"]\nblock', "[]\nblock", "launch 1 (row_softmax): grid needs one to three entries"),
        ('["rows"]\nblock', "[1, 1, 1, 1]\nblock", "launch 1 (row_softmax): grid: 4 entries; 3 is the limit"),
        ("[4, 1, 2]", "[]", "tunables.VEC: needs at least one value"),
        ("[4, 1, 2]", "[4, 1, 4]", "tunables.VEC: a value is given twice"),
        ("[4, 1, 2]", "[true]", "tunables.VEC[0]: should be a valid integer"),
        ("[4, 1, 2]", "4", "tunables.VEC: should be a valid list"),
        ("[4, 1, 2]", "[9223372036854775808]", "tunables.VEC: the values must be integers that fit 64 bits"),
        ("VEC   =", "cols =", "'cols' is named twice: as a symbol and as a tunable"),
        ("VEC   =", "partial =", "'partial' is named twice: as a tunable and as a buffer"),
        ("VEC   =", "sm_count =", "'sm_count' is named twice: as a property of the device and as a tunable"),
        ("VEC   =", "min =", "'min' is named twice: as a function and as a tunable"),
        ("VEC   =", '"a-b" =', "'a-b' cannot name a tunable"),
        ("VEC   =", "float =", "tunables.float: the name is reserved"),
        ("VEC   =", "__CUDA_ARCH__ =", "tunables.__CUDA_ARCH__: the name is reserved"),
        ('shared = "BLOCK * 4"', "max_registers = 8", "max_registers must lie between 16 and 255"),
        ("[symbols]", 'flags = ["-Xcompiler"]\n[symbols]', "the compiler flag '-Xcompiler' is not on the allow-list"),
        ("[symbols]", 'flags = ["-maxrregcount=32"]\n[symbols]', "write max_registers in a launch"),
        ("[symbols]", 'flags = ["--ftz=true", "-ftz=false"]\n[symbols]', "--ftz is given twice"),
        ("[symbols]", "[symbols", "not TOML"),
        ("[4, 1, 2]", "[" + "1" * 5000 + "]", "not TOML"),
        ("[4, 1, 2]", "[1979-05-27]", "tunables.VEC[0]: should be a valid integer"),
        (SOFTMAX[SOFTMAX.index("[[launch]]") :], "", "the plan launches nothing"),
    ],
)
def test_mistakes_are_named_with_their_place(old: str, new: str, message: str) -> None:
    assert old in SOFTMAX
    with pytest.raises(ProgramError) as caught:
        parse_plan(SOFTMAX.replace(old, new, 1))
    assert message in str(caught.value)


def test_malformed_expressions_are_named_with_their_place_and_a_caret() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_plan(SOFTMAX.replace("ceil_div(cols, BLOCK)", "cols / BLOCK"))
    place, text, caret = str(caught.value).split("\n")
    assert place.startswith("buffers.partial: shape[1]: '/' is not defined for integers")
    assert text[caret.index("^")] == "/"


def test_errors_name_file_and_line() -> None:
    with pytest.raises(ProgramError) as caught:
        parse_plan(SOFTMAX.replace("VEC   = [4, 1, 2]", "VEC   = = 4"), file="softmax/plan.toml")
    assert str(caught.value).startswith("softmax/plan.toml:8: not TOML")
    with pytest.raises(ExpressionError) as wrong:
        parse_plan(SOFTMAX.replace("x.shape[1]", "x.shape["), file="softmax/plan.toml")
    assert str(wrong.value).startswith("softmax/plan.toml: symbols.cols: ")


def test_a_plan_that_could_not_be_read_back_is_not_written() -> None:
    plan = parse_plan(SOFTMAX)
    for broken in (
        replace(plan, symbols=(('a" = 1\n#', "1"),)),
        replace(plan, launches=()),
        replace(plan, flags=("--device-c",)),
        replace(
            plan,
            launches=(
                replace(
                    plan.launches[0],
                    args=('"', "x"),
                ),
            ),
        ),
    ):
        with pytest.raises(ProgramError):
            format_plan(broken)


def test_deep_nesting_is_a_program_error() -> None:
    with pytest.raises(ProgramError):
        parse_plan("a = " + "[" * 50_000)


def test_a_program_written_to_a_folder_is_read_back_unchanged(tmp_path: Path) -> None:
    program = Program('// naïve\r\nextern "C" __global__ void row_softmax() {}\n', parse_plan(SOFTMAX))
    write_program(tmp_path / "new" / "folder", program)
    again = read_program(tmp_path / "new" / "folder")
    assert again == program
    assert again.key == program.key


def test_reading_says_which_file_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="no such folder"):
        read_program(tmp_path / "nowhere")
    with pytest.raises(ProgramError, match=r"has no plan\.toml"):
        read_program(tmp_path)
    (tmp_path / "plan.toml").write_text(SOFTMAX)
    with pytest.raises(ProgramError, match=r"has no kernel\.cu"):
        read_program(tmp_path)
    (tmp_path / "kernel.cu").write_bytes(b"// \xff")
    with pytest.raises(ProgramError, match=r"kernel\.cu: is not UTF-8 text \(byte 3\)"):
        read_program(tmp_path)
    (tmp_path / "plan.toml").write_text("[symbols]\nrows = 1.5\n")
    with pytest.raises(ProgramError, match=r"plan\.toml: symbols\.rows: "):
        read_program(tmp_path)
