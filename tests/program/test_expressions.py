"""The arithmetic of plans: agrees with Python, refuses politely, and never evaluates anything else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warpsmith.errors import ExpressionError
from warpsmith.program.expressions import evaluate
from warpsmith.program.parser import MAX_DEPTH, MAX_LENGTH, parse
from warpsmith.program.tree import (
    Binary,
    Call,
    Expression,
    Extent,
    Integer,
    Name,
    Negative,
    Numel,
    format_expression,
    names_in,
)
from warpsmith.records import TensorSpec

NAMES = {"rows": 48, "cols": 1000, "BLOCK": 256, "big": 2**62, "zero": 0, "minus": -7}
TENSORS = {"x": TensorSpec("x", (3, 5, 7), "float32"), "s": TensorSpec("s", (), "float32")}
FITS = range(-(2**63), 2**63)


def value(text: str) -> int:
    return evaluate(text, NAMES, TENSORS)


def trees(depth: int = 5) -> st.SearchStrategy[Expression]:
    leaves: st.SearchStrategy[Expression] = st.one_of(
        st.builds(Integer, st.integers(0, 50)),
        st.builds(Integer, st.integers(0, 2**63 - 1)),
        st.builds(Name, st.sampled_from(sorted(NAMES))),
        st.builds(Extent, st.just("x"), st.integers(-3, 2)),
        st.builds(Numel, st.sampled_from(["x", "s"])),
    )

    def grow(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        return st.one_of(
            st.builds(Negative, inner),
            st.builds(Binary, st.sampled_from(["+", "-", "*", "//", "%"]), inner, inner),
            st.builds(Call, st.sampled_from(["ceil_div", "align_up"]), st.tuples(inner, inner)),
            st.builds(Call, st.sampled_from(["min", "max"]), st.lists(inner, min_size=2, max_size=4).map(tuple)),
            st.builds(Call, st.sampled_from(["next_pow2", "log2"]), st.tuples(inner)),
        )

    return st.recursive(leaves, grow, max_leaves=12)


class Refused(Exception):
    pass


def by_python(tree: Expression) -> int:
    """The value of a tree, computed independently of the evaluator; Refused where it must refuse."""
    match tree:
        case Integer(number):
            result = number
        case Name(name):
            result = NAMES[name]
        case Extent(tensor, axis):
            result = TENSORS[tensor].shape[axis]
        case Numel(tensor):
            result = math.prod(TENSORS[tensor].shape)
        case Negative(operand):
            result = -by_python(operand)
        case Binary(operator, left, right):
            a, b = by_python(left), by_python(right)
            if operator in ("//", "%") and b == 0:
                raise Refused
            result = {"+": a + b, "-": a - b, "*": a * b, "//": a // (b or 1), "%": a % (b or 1)}[operator]
        case Call(function, arguments):
            given_values = [by_python(argument) for argument in arguments]
            a, b = given_values[0], given_values[-1]
            if function in ("ceil_div", "align_up"):
                if b <= 0:
                    raise Refused
                rounded = (a + b - 1) // b
                result = rounded if function == "ceil_div" else rounded * b
            elif function in ("next_pow2", "log2"):
                if a <= 0:
                    raise Refused
                exponent = next(e for e in range(70) if 2**e >= a) if function == "next_pow2" else len(bin(a)) - 3
                result = 2**exponent if function == "next_pow2" else exponent
            else:
                result = sorted(given_values)[0 if function == "min" else -1]
    if result not in FITS:
        raise Refused
    return result


@given(trees())
def test_values_agree_with_python(tree: Expression) -> None:
    text = format_expression(tree)
    try:
        due = by_python(tree)
    except Refused:
        with pytest.raises(ExpressionError):
            value(text)
    else:
        assert value(text) == due


@given(trees())
def test_text_of_a_tree_parses_to_the_same_tree(tree: Expression) -> None:
    assert parse(format_expression(tree)) == tree


@given(trees())
def test_spaces_and_extra_parentheses_change_nothing(tree: Expression) -> None:
    text = format_expression(tree)
    assert parse(f"  (( {text}\t))") == tree


def refuses_or_parses(text: str) -> None:
    try:
        tree = parse(text)
    except ExpressionError as error:
        assert str(error)
    else:
        assert parse(format_expression(tree)) == tree


@settings(max_examples=300)
@given(st.text())
def test_arbitrary_text_raises_nothing_but_expression_errors(text: str) -> None:
    refuses_or_parses(text)


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            ["rows", "x", ".shape", "[", "]", "0", "-", "(", ")", "+", "*", "//", "%", ",", "min", "ceil_div", ".", " "]
            + ["/", "numel", "9" * 19, "**", "<", "__import__", "²", "٣"]
        ),
        max_size=40,
    ).map("".join)
)
def test_almost_expressions_raise_nothing_but_expression_errors(text: str) -> None:
    refuses_or_parses(text)
    try:
        assert value(text) in FITS
    except ExpressionError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("10 - 4 - 3", 3),
        ("100 // 7 // 2", 7),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("7 % -3", -2),
        ("--5", 5),
        ("2 * -3", -6),
        ("x.shape[0] * x.shape[-1]", 21),
        ("x.numel", 105),
        ("s.numel", 1),
        ("ceil_div(cols, BLOCK)", 4),
        ("ceil_div(-7, 2)", -3),
        ("align_up(cols, 128)", 1024),
        ("align_up(0, 128)", 0),
        ("min(4, 2, 3)", 2),
        ("max(rows, cols)", 1000),
        ("next_pow2(1)", 1),
        ("next_pow2(1000)", 1024),
        ("next_pow2(1024)", 1024),
        ("log2(1)", 0),
        ("log2(1023)", 9),
        ("log2(1024)", 10),
    ],
)
def test_documented_meaning(text: str, due: int) -> None:
    assert value(text) == due


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("rows / 2", "write '//'", 6),
        ("rows // zero", "division by zero", 6),
        ("rows % zero", "division by zero", 6),
        ("ceil_div(rows, zero)", "divisor must be positive", 1),
        ("align_up(rows, -4)", "must be positive", 1),
        ("1 + log2(zero)", "needs a positive number", 5),
        ("next_pow2(minus)", "needs a positive number", 1),
        ("big * 2", "does not fit 64 bits", 5),
        ("next_pow2(big + 1) + next_pow2(big)", "does not fit 64 bits", 1),
        ("-(-big - big)", "does not fit 64 bits", 1),
        ("9223372036854775808", "does not fit 64 bits", 1),
        ("2 * row", "did you mean 'rows'", 5),
        ("x", "is a tensor; write x.shape[0]", 1),
        ("y.numel", "unknown tensor 'y'", 1),
        ("x.shape[3]", "has 3 dimensions", 1),
        ("s.shape[0]", "has 0 dimensions", 1),
        ("x.size[0]", "has 'shape' and 'numel'", 3),
        ("x.shape[rows]", "expected an integer", 9),
        ("cieldiv(1, 2)", "did you mean 'ceil_div'", 1),
        ("min(1)", "takes 2 to 16 arguments, not 1", 1),
        ("log2(1, 2)", "takes 1 argument, not 2", 1),
        ("min()", "unexpected ')'", 5),
        ("1 +", "ends too early", 4),
        ("", "ends too early", 1),
        ("(1", "expected ')'", 3),
        ("1 2", "unexpected '2'", 3),
        ("1 < 2", "unexpected character '<'", 3),
        ("2 ** 3", "unexpected '*'", 4),
        ("rows; cols", "unexpected character ';'", 5),
        ("٣", "unexpected character", 1),
    ],
)
def test_refusals_name_the_reason_and_the_column(text: str, message: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        value(text)
    said = str(caught.value)
    assert message in said
    assert said.split("\n")[-1].index("^") == 4 + column - 1


def test_caret_stays_in_view_in_a_long_expression() -> None:
    text = "+".join(["rows"] * 50) + " + rowz"
    with pytest.raises(ExpressionError) as caught:
        value(text)
    _, shown, caret = str(caught.value).split("\n")
    assert len(shown) <= 84
    assert shown[caret.index("^") :].startswith("rowz")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 400 + "1" + ")" * 400,
        "-" * 900 + "1",
        "+".join(["1"] * 400),
        "min(1," * 150 + "1" + ")" * 150,
        "1" + "0" * MAX_LENGTH,
        "1 +" * 100_000 + "1",
    ],
)
def test_depth_and_length_are_limited(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse(text)


def test_depth_just_within_the_limit_is_accepted() -> None:
    assert value("+".join(["1"] * MAX_DEPTH)) == MAX_DEPTH
    assert value("(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)) == 1


def test_names_in_a_tree_are_those_that_its_value_depends_on() -> None:
    assert names_in(parse("rows * -ceil_div(cols, BLOCK) + x.shape[0] + x.numel + 3")) == {"rows", "cols", "BLOCK"}
