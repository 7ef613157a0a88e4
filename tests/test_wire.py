"""Messages between processes: what is sent arrives, and what is no message harms nobody."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import threading
from collections.abc import Iterator

import pytest

from warpsmith import wire


class Pipe:
    """Both ends of a pipe."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def raw(self, data: bytes) -> None:
        """Put bytes in that need not be a message; few enough for the pipe to hold."""
        os.write(self.write, data)

    def head(self, text: str) -> None:
        """Put the JSON part of a message in."""
        self.raw(struct.pack(">Q", len(text.encode())) + text.encode())

    def close(self) -> None:
        for descriptor in (self.read, self.write):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_a_message_arrives_as_it_was_sent_with_all_of_its_bytes(pipe: Pipe) -> None:
    blobs = [b"", bytes(range(256)), os.urandom(5 << 20), b"\0"]
    message = {"do": "load", "grid": [1, 2, 3], "deep": {"text": "µs", "none": None}}
    # Longer than a pipe holds, so both sides are needed at once.
    sender = threading.Thread(target=wire.send, args=(pipe.write, message, *blobs))
    sender.start()
    got = wire.receive(pipe.read, 30.0)
    sender.join()
    assert got == (message, blobs)


def test_messages_do_not_run_into_each_other(pipe: Pipe) -> None:
    for number in range(3):
        wire.send(pipe.write, {"number": number}, b"x" * number)
    assert [wire.receive(pipe.read, 30.0) for _ in range(3)] == [({"number": n}, [b"x" * n]) for n in range(3)]


def test_without_a_time_limit_a_message_is_waited_for(pipe: Pipe) -> None:
    threading.Timer(0.05, wire.send, (pipe.write, {"late": True})).start()
    assert wire.receive(pipe.read) == ({"late": True}, [])


@pytest.mark.parametrize("sent", [b"", b"\0\0\0", struct.pack(">Q", 100) + b'{"a": 1, "si'])
def test_who_stops_in_the_middle_of_a_message_is_late(pipe: Pipe, sent: bytes) -> None:
    pipe.raw(sent)
    with pytest.raises(wire.Late):
        wire.receive(pipe.read, 0.05)


@pytest.mark.parametrize("sent", [b"", b"\0\0\0", struct.pack(">Q", 100) + b'{"a": 1, "si'])
def test_who_ends_in_the_middle_of_a_message_is_gone(pipe: Pipe, sent: bytes) -> None:
    pipe.raw(sent)
    os.close(pipe.write)
    with pytest.raises(wire.Closed):
        wire.receive(pipe.read, 30.0)


def test_sending_to_nobody_is_told_by_type_and_not_by_a_signal(pipe: Pipe) -> None:
    os.close(pipe.read)
    with pytest.raises(wire.Closed):
        wire.send(pipe.write, {"do": "call"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "[]",
        "7",
        "null",
        '"sizes"',
        "{}",
        '{"sizes": 3}',
        '{"sizes": ["many"]}',
        '{"sizes": [null]}',
        '{"sizes": [NaN]}',
        '{"sizes": [-1]}',
        '{"sizes": [8, -8]}',
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + ', "sizes": []}',
    ],
)
def test_what_is_no_message_is_nonsense(pipe: Pipe, text: str) -> None:
    sender = threading.Thread(target=pipe.head, args=(text,))
    sender.start()
    with pytest.raises(wire.Nonsense):
        wire.receive(pipe.read, 30.0)
    sender.join()


@pytest.mark.parametrize("size", ["Infinity", "1e999"])
def test_an_infinite_size_is_nonsense(pipe: Pipe, size: str) -> None:
    pipe.head(f'{{"sizes": [{size}]}}')
    with pytest.raises(wire.Nonsense):
        wire.receive(pipe.read, 30.0)


def test_text_that_is_not_utf8_is_nonsense(pipe: Pipe) -> None:
    pipe.raw(struct.pack(">Q", 4) + b"\xff\xfe{}")
    with pytest.raises(wire.Nonsense):
        wire.receive(pipe.read, 30.0)


def test_more_than_the_reader_takes_is_refused_before_it_is_read(pipe: Pipe) -> None:
    pipe.raw(struct.pack(">Q", 1 << 60))
    with pytest.raises(wire.Nonsense, match="1152921504606846976"):
        wire.receive(pipe.read, 30.0)
    # What is announced is refused, not what has come: nothing of it is there.
    pipe.head(json.dumps({"sizes": [600, 500]}))
    with pytest.raises(wire.Nonsense, match="1100"):
        wire.receive(pipe.read, 30.0, max_blob=1024)


def test_a_reader_that_takes_no_bytes_still_takes_messages(pipe: Pipe) -> None:
    wire.send(pipe.write, {"ready": True})
    assert wire.receive(pipe.read, 30.0, max_blob=0) == ({"ready": True}, [])


def test_a_process_with_many_open_files_can_receive(pipe: Pipe) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    os.dup2(pipe.read, 1100)
    try:
        wire.send(pipe.write, {"ready": True})
        assert wire.receive(1100, 30.0) == ({"ready": True}, [])
    finally:
        os.close(1100)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
