"""A record must come back from the archive exactly as it went in, or a resumed run would differ from one that was not."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given

from tests.archive import strategies
from tests.samples import DROPPING, TASK
from warpsmith.archive import decode, encode
from warpsmith.errors import ArchiveError
from warpsmith.records import Candidate, Graph, KernelResources, Mismatch, Program, Tolerance, Verdict


@given(strategies.candidates())
def test_candidate_survives(record: Candidate) -> None:
    again = decode(Candidate, encode(record))
    assert again == record
    assert again.key == record.key


@given(strategies.verdicts())
def test_verdict_survives(record: Verdict) -> None:
    assert decode(Verdict, encode(record)) == record


@given(strategies.graphs)
def test_graph_survives_with_the_types_of_its_arguments(record: Graph) -> None:
    again = decode(Graph, encode(record))
    # `1 == 1.0 == True` in Python but not to an operator, so equality alone would hide a mix-up.
    assert repr(again) == repr(record)
    assert again.key == record.key


def test_masks_survive_and_older_archives_have_none() -> None:
    graph = DROPPING.graph
    assert decode(Graph, encode(graph)) == graph
    before = json.loads(encode(TASK.graph))
    del before["masks"]
    assert decode(Graph, json.dumps(before)).key == TASK.graph.key


def test_text_is_json_that_other_languages_read() -> None:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    mismatch = Mismatch("out", (0,), math.inf, math.nan, 1, 2)
    text = encode(mismatch)
    assert json.loads(text, parse_constant=refuse)["got"] == "nan"
    again = decode(Mismatch, text)
    assert again.expected == math.inf
    assert math.isnan(again.got)


def test_a_field_that_an_older_version_did_not_write_takes_its_default() -> None:
    assert decode(Tolerance, '{"factor":3.0}') == Tolerance(factor=3.0)


@pytest.mark.parametrize(
    ("kind", "text", "what"),
    [
        (Tolerance, "{", "JSON|Expecting"),
        (Tolerance, '{"facto":3.0}', "facto"),
        (Tolerance, '{"factor":"three"}', "three"),
        (Tolerance, "[]", "Tolerance"),
        (Program, '{"source":"s"}', "plan"),
        (KernelResources, '{"name":1,"registers":1,"spill_stores":0,"spill_loads":0,"shared":0,"stack":0}', "str"),
    ],
)
def test_damaged_text_is_an_error_that_says_what_is_wrong(kind: type, text: str, what: str) -> None:
    with pytest.raises(ArchiveError, match=what):
        decode(kind, text)


def test_binaries_are_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        encode((b"cubin",))
