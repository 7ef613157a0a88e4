"""The compiler process may end or answer anything: the parent never hangs, and says what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from warpsmith.errors import CompilerUnavailable
from warpsmith.program import worker
from warpsmith.program.worker import CompilerProcess

HELLO = """
import json, os, struct, sys, time
def frame(head):
    text = json.dumps(head).encode()
    os.write(1, struct.pack(">Q", len(text)) + text)
"""
GREET = HELLO + 'frame({"sizes": [], "architectures": [90]})\nsys.stdin.buffer.read(8)\n'


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(worker, "__file__", str(tmp_path / "worker.py"))
    return tmp_path / "compiler.py"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("import nowhere_to_be_found", "ended with code 1: ModuleNotFoundError"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("print('x' * 100)", "answered nonsense"),
        (HELLO + "frame([])", "answered nonsense"),
        (HELLO + 'frame({"sizes": [1]})', "answered nonsense"),
        (HELLO + "os.write(1, struct.pack('>Q', 3) + b'{{{')", "answered nonsense"),
    ],
)
def test_a_compiler_that_does_not_start_is_unavailable(fake: Path, behaviour: str, message: str) -> None:
    fake.write_text(behaviour)
    with pytest.raises(CompilerUnavailable, match=message):
        CompilerProcess(timeout_s=5, memory_mb=1024).start()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("os.abort()", "ended by SIGABRT (its memory limit is 1024 MiB)"),
        ("sys.exit(0)", "ended with code 0"),
        ('frame({"sizes": [0, 0]})', "answered nonsense"),
        ('frame({"sizes": [0, 0, -1]})', "answered nonsense"),
        ('frame({"sizes": [0, 0, 1 << 40]})', "answered nonsense"),
        ('frame({"sizes": "abc"})', "answered nonsense"),
        ('frame({"sizes": [0, 0, 0]})', "answered nonsense"),
        ('frame({"result": 0, "sizes": [5, 5, 5]}); os.write(1, b"short"); time.sleep(60)', "was stopped after 0.5 s"),
        ("time.sleep(60)", "was stopped after 0.5 s"),
    ],
)
def test_a_compiler_that_fails_at_work_is_a_refusal_with_the_reason(fake: Path, behaviour: str, message: str) -> None:
    fake.write_text(GREET + behaviour)
    compiler = CompilerProcess(timeout_s=0.5, memory_mb=1024)
    compiled = compiler.compile("", {}, [])
    assert not compiled.ok
    assert compiled.stopped is not None
    assert message in compiled.stopped
    assert compiler._process is None


def test_a_compiler_that_dies_after_good_work_is_asked_once_more(fake: Path, tmp_path: Path) -> None:
    marks = tmp_path / "starts"
    answer = 'frame({"result": 0, "sizes": [0, 0, 0]})\n'
    serve = "length = struct.unpack('>Q', first)[0]; sys.stdin.buffer.read(length)\n"
    fake.write_text(
        HELLO
        + f"open({str(marks)!r}, 'a').write('x')\n"
        + 'frame({"sizes": []})\n'
        + "first = sys.stdin.buffer.read(8)\n"
        + serve
        + answer
        + "sys.stdin.buffer.read(8)\nos.abort()\n"
    )
    compiler = CompilerProcess(timeout_s=5, memory_mb=1024)
    assert compiler.compile("", {}, []).ok
    assert compiler.compile("", {}, []).ok
    assert marks.read_text() == "xx"
    compiler.close()
