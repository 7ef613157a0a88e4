"""Recorded replies are read as they were meant, and complained about exactly where they cannot be."""

from __future__ import annotations

import pytest

from tests.author.llm.kit import FOLDER, judged, known, program, question, reply
from warpsmith.author.llm.fences import blocks_in, fenced
from warpsmith.author.llm.reply import MAX_REPLY, NOTE, Complaint, Reading, first_sentence, read_reply
from warpsmith.records import Stage

WHY = "One block per row with warp shuffles keeps the row in L1 and needs only two barriers per reduction."
SAME = (
    "plain",
    "thinking",
    "swapped",
    "wrapped",
    "unlabelled",
    "tildes",
    "chatter",
    "filenames",
    "attributes",
    "no_closing_fence",
    "run_together",
)
"""Replies that say the same in different ways."""

COMPLAINTS = {
    "blank": "The reply is empty",
    "broken_toml": "not TOML",
    "declined": "neither a ```cuda block nor a ```toml block",
    "diff": "neither a ```cuda block nor a ```toml block",
    "hostile_call": "'os.system' may not be called",
    "hostile_nesting": "cannot be used",
    "hostile_path": "'../../../../etc/passwd' is not the name",
    "library": "kernels must do all of the work",
    "no_output": "No step is given the output out",
    "no_plan": "no ```toml block with the plan",
    "plan_only": "no ```cuda block with the complete device code",
    "too_many_threads": "it must lie between 1 and 1024",
    "truncated": "no fence closes it",
    "unfenced": "must stand between fences",
    "unknown_key": "unknown key 'blocks'",
    "unknown_tensor": "unknown name 'output'",
}
READ = {"quoted", "does_not_compile", "hostile_host", "hostile_include", "race", "wrong_value", *SAME}


def read(name: str) -> Reading:
    reading = read_reply(reply(name), question())
    assert isinstance(reading, Reading), reading
    return reading


def complaint_about(text: str, *, cut: bool = False, hybrid: bool = False) -> str:
    complaint = read_reply(text, question(hybrid=hybrid), cut=cut)
    assert isinstance(complaint, Complaint)
    return complaint.text


def test_every_recorded_reply_is_accounted_for() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == READ | set(COMPLAINTS)


@pytest.mark.parametrize("name", SAME)
def test_the_form_of_a_reply_does_not_matter(name: str) -> None:
    assert read(name).program == read("plain").program
    assert read(name).tunables == (("BLOCK", 128),)


def test_thoughts_without_their_opening_mark_are_thoughts() -> None:
    reading = read_reply(reply("thinking").removeprefix("<think>"), question())
    assert isinstance(reading, Reading)
    assert reading.program == read("plain").program
    assert complaint_about(reply("thinking").replace("</think>", "")).startswith("The reply is empty")


def test_indented_blocks_of_a_list_are_read() -> None:
    assert read("quoted").program.plan == read("plain").program.plan


@pytest.mark.parametrize("change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, lambda t: "\n\n" + t])
def test_line_ends_and_byte_order_marks_do_not_matter(change) -> None:  # type: ignore[no-untyped-def]
    reading = read_reply(change(reply("plain")), question())
    assert isinstance(reading, Reading)
    assert reading.program == read("plain").program
    assert reading.note == WHY


@pytest.mark.parametrize("name", sorted(COMPLAINTS))
def test_what_cannot_be_read_is_complained_about(name: str) -> None:
    assert COMPLAINTS[name] in complaint_about(reply(name))


def test_a_complaint_about_a_plan_shows_the_place() -> None:
    complaint = complaint_about(reply("unknown_tensor"))
    assert "launch 1 (row_softmax): args[1]" in complaint
    assert "The tensors of the task are x, out." in complaint


def test_a_reply_that_was_stopped_is_told_so() -> None:
    assert "cut off at the limit of its length" in complaint_about(reply("truncated"), cut=True)
    assert "cut off at the limit of its length" in complaint_about("", cut=True)
    assert "cut off at the limit of its length" in complaint_about("<think>\nLet me see", cut=True)


def test_library_calls_are_read_where_they_are_allowed() -> None:
    assert "call 1 (aten.mm)" in complaint_about(reply("library"), hybrid=True)


def test_a_missing_plan_is_the_parents_where_it_fits() -> None:
    parent = program("race")
    reading = read_reply(reply("no_plan"), question(parent))
    assert isinstance(reading, Reading)
    assert reading.program.plan == parent.plan
    assert reading.program.source == program("plain").source
    stranger = read_reply(reply("no_plan").replace("row_softmax", "another"), question(parent))
    assert isinstance(stranger, Complaint) and "no ```toml block" in stranger.text


def test_missing_device_code_is_the_parents_where_the_plan_fits_it() -> None:
    reading = read_reply(reply("plan_only"), question(program("plain")))
    assert isinstance(reading, Reading)
    assert reading.program.source == program("plain").source
    assert reading.tunables == (("BLOCK", 512),)


def test_a_program_that_was_given_is_no_answer() -> None:
    complaint = read_reply(reply("plain"), question(program("wrong_value"), program("plain")))
    assert isinstance(complaint, Complaint) and "same as one that was given" in complaint.text


def test_an_enormous_reply_is_not_read() -> None:
    assert f"{MAX_REPLY} is the limit" in complaint_about("x" * (MAX_REPLY + 1))
    # Just below the limit, with as many fences as fit, it is read in no time.
    for hostile in ("```\n", "```" + " " * 20_000 + "`\n", "row_softmax (", "<think>", "/*"):
        assert complaint_about(hostile * (MAX_REPLY // len(hostile)))


def test_characters_that_cannot_be_stored_are_replaced() -> None:
    reading = read_reply(reply("plain").replace("// One block", "// \ud800\0 One block"), question())
    assert isinstance(reading, Reading)
    assert "\0" not in reading.program.source
    assert reading.program.source.encode().decode() == reading.program.source
    assert len(reading.program.key) == 16


@pytest.mark.parametrize("name", ["hostile_host", "hostile_include", "does_not_compile"])
def test_code_for_the_host_and_foreign_files_end_at_the_compiler(name: str) -> None:
    failure = judged(name).verdict.failure
    assert failure is not None and failure.stage == Stage.BUILD


def test_a_note_is_the_first_sentence_on_one_line() -> None:
    assert read("plain").note == WHY
    assert read("unlabelled").note == WHY
    assert first_sentence("# Plan\n\nReasoning:\n- **Vector loads** help. A lot.") == "Vector loads help."
    assert first_sentence("Use `row_softmax` twice. Then stop.") == "Use row_softmax twice."
    assert first_sentence("Colours \x1b[31mand\x07 bells. More.") == "Colours [31mand bells."
    assert len(first_sentence("very " * 100 + "long.")) <= NOTE
    assert first_sentence("") == ""


def test_a_fence_is_longer_than_any_in_what_it_holds() -> None:
    hostile = "// ````\n```\n# Not the task"
    blocks, prose = blocks_in(fenced(hostile, "cuda"), {"cuda"})
    assert [block.text for block in blocks] == [hostile]
    assert blocks[0].closed and prose == ""


def test_the_known_program_is_another_one() -> None:
    assert known().candidate.program.key != program("plain").key
