"""The text form of plans: what is accepted, that nothing is lost on the way, and what is said of mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpsmith.errors import ExpressionError, ProgramError
from warpsmith.program import FLAGS, format_plan, parse_plan, read_program, write_program
from warpsmith.program.library import LIBRARY
from warpsmith.records import DTYPE_BYTES, Buffer, Call, Launch, Plan, Program, View

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


HYBRID = """
[buffers.sums]
shape = ["x.shape[0]", 64]
dtype = "float32"

[[launch]]
kernel = "first"
grid = [1]
block = [32]
args = ["x"]

[[call]]
op = "aten.mm"
after = 1
args = ["x", { tensor = "w", shape = ["x.shape[1]", 64], strides = [1, "x.shape[1]"], offset = 8 }]
out = "sums"

[[call]]
op = "aten.convolution"
after = 1
args = ["image", "filter"]
out = "out"
options = { stride = 2, padding = [1, "1 + 1"] }
"""


def test_a_call_is_read_whole_and_stands_where_it_says() -> None:
    plan = parse_plan(HYBRID)
    product, convolution = plan.calls
    assert product == Call(
        "aten.mm",
        (View("x"), View("w", ("x.shape[1]", "64"), ("1", "x.shape[1]"), "8")),
        View("sums"),
        after=1,
    )
    assert convolution.options == (("stride", ("2",)), ("padding", ("1", "1 + 1")))
    assert not plan.pure and plan.steps == (plan.launches[0], product, convolution)


def test_steps_run_in_the_order_of_their_places() -> None:
    launches = tuple(Launch(f"k{number}", ("1",), ("1",), ()) for number in range(3))
    calls = tuple(Call("aten.mm", (View("a"), View(name)), View("c"), after=at) for name, at in
                  (("first", 0), ("second", 0), ("third", 2), ("last", 3)))  # fmt: skip
    steps = Plan((), (), (), launches, calls=calls).steps
    assert [step.kernel if isinstance(step, Launch) else step.args[1].tensor for step in steps] == [
        "first", "second", "k0", "k1", "third", "k2", "last",
    ]  # fmt: skip


def test_keys_of_pure_programs_are_those_from_before_there_were_calls() -> None:
    """An archive that was written earlier knows its programs by these keys."""
    plan = parse_plan(SOFTMAX)
    assert Program("// code", plan).key == "da812177b7d4f7e2"
    call = Call("aten.mm", (View("x"), View("y")), View("out"))
    assert Program("// code", replace(plan, calls=(call,))).key != "da812177b7d4f7e2"


# Two underscores in a row are reserved in C++.
names = st.from_regex(r"[a-z]([a-z0-9]|_[a-z0-9]){0,4}[0-9]", fullmatch=True)
texts = st.one_of(
    st.integers(0, 2**63 - 1).map(str),
    st.sampled_from(["sm_count", "x.shape[0] * 2", "ceil_div(x.numel, 256)", " - 1", "007", "max(1,\t2)"]),
)


def tuples(elements: st.SearchStrategy[str], least: int, most: int) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(elements, min_size=least, max_size=most).map(tuple)


views = st.one_of(
    st.builds(View, names),
    st.integers(1, 3).flatmap(
        lambda rank: st.builds(
            View,
            names,
            tuples(texts, rank, rank),
            st.one_of(st.just(()), tuples(texts, rank, rank)),
            texts,
        )
    ),
)


@st.composite
def calls(draw: st.DrawFn, after: int) -> Call:
    op = draw(st.sampled_from(sorted(LIBRARY)))
    operator = LIBRARY[op]
    most = len(operator.tensors)
    args = draw(st.lists(views, min_size=most - operator.optional, max_size=most))
    chosen = draw(st.lists(st.sampled_from(sorted(operator.options) or ["none"]), unique=True, max_size=3))
    options = tuple((name, draw(tuples(texts, 1, 3))) for name in chosen if name in operator.options)
    return Call(op, tuple(args), draw(views), options, after)


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
    launches = tuple(draw(st.lists(launch, max_size=3)))
    places = draw(st.lists(st.integers(0, len(launches)), min_size=not launches, max_size=3))
    return Plan(
        symbols=tuple((name, draw(texts)) for name in symbols),
        tunables=tuple((name, draw(values)) for name in tunables),
        buffers=tuple(
            Buffer(name, draw(tuples(texts, 0, 3)), draw(st.sampled_from(sorted(DTYPE_BYTES)))) for name in buffers
        ),
        launches=launches,
        flags=tuple(flags),
        calls=tuple(draw(calls(after)) for after in sorted(places)),
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"aten.mm"',
            '"aten.nonzero"',
            "call 1 (aten.nonzero): 'aten.nonzero' may not be called; known: aten.addmm,",
        ),
        ('"aten.mm"', '"aten.bm"', "call 1 (aten.bm): 'aten.bm' may not be called; did you mean 'aten.bmm'?"),
        ('"aten.mm"', '"aten.addmm"', "call 1 (aten.addmm): 2 tensors in args; aten.addmm takes self, mat1, mat2"),
        ('"aten.convolution"\n', '"aten.convolution"\nout_ = "y"\n', "call 2: unknown key 'out_'; did you mean 'out'?"),
        ("offset = 8", "offest = 8", "call 1: args[1]: unknown key 'offest'; did you mean 'offset'?"),
        ('tensor = "w", ', "", "call 1: args[1]: 'tensor' is missing"),
        ('out = "sums"', "", "call 1: 'out' is missing"),
        ('out = "sums"', "out = 7", "call 1: out: must be the name of a tensor, or a table with 'tensor' and 'shape'"),
        ('out = "sums"', 'out = "a b"', "call 1 (aten.mm): out: 'a b' is not the name of a tensor or buffer"),
        ('strides = [1, "x.shape[1]"]', "strides = [1]", "args[1]: 1 strides for a shape of 2 dimensions"),
        ('{ tensor = "w"', '{ tensor = "w" }, { tensor = "w"', "call 1 (aten.mm): 3 tensors in args"),
        ("stride = 2", "strid = 2", "aten.convolution has no option 'strid'; did you mean 'stride'?"),
        ("stride = 2", "stride = []", "options.stride must be given once, with at least one number"),
        ("stride = 2", "stride = 2.0", "call 2: options.stride[0]: must be text, or an integer"),
        ("stride = 2", 'stride = "2 /"', "call 2 (aten.convolution): options.stride[0]: '/' is not defined"),
        ("after = 1", "after = 2", "call 1 (aten.mm): after = 2, but the plan has 1 launches"),
        ("after = 1", "after = -1", "call 1 (aten.mm): after = -1"),
        ('"aten.convolution"\nafter = 1', '"aten.convolution"', "the call before it stands after launch 1"),
    ],
)
def test_mistakes_in_calls_are_named_with_their_place(old: str, new: str, message: str) -> None:
    assert old in HYBRID
    with pytest.raises(ProgramError) as caught:
        parse_plan(HYBRID.replace(old, new, 1))
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
