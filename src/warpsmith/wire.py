"""Plain messages between processes: a JSON object and some bytes, both of limited length. Nothing is unpickled.

    8 bytes   length of the JSON text, big endian
    JSON      an object; its key "sizes" holds the lengths of what follows
    bytes     one stretch after the other

Who reads says how much it is prepared to take, so that a process that was taken over can neither fill our memory nor
run code in it.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

MAX_HEAD = 1 << 22
MAX_BLOB = 1 << 31

Message = dict[str, Any]


class Closed(Exception):
    """The other end is gone."""


class Late(Exception):
    """The other end did not answer in time."""


class Nonsense(Exception):
    """The other end sent what is no message, or more than it may."""


def send(descriptor: int, message: Message, *blobs: bytes, seconds: float | None = None) -> None:
    """Write one message, within `seconds` if given. Raises Closed where nobody reads any more, Late in time."""
    end = None if seconds is None else time.monotonic() + seconds
    head = json.dumps({**message, "sizes": [len(blob) for blob in blobs]}).encode()
    try:
        for part in (struct.pack(">Q", len(head)), head, *blobs):
            view = memoryview(part)
            while view:
                left = None if end is None else end - time.monotonic()
                if left is not None and (left <= 0 or not _ready(descriptor, select.POLLOUT, left)):
                    raise Late
                # A pipe that can be written to takes this much without waiting.
                view = view[os.write(descriptor, view if left is None else view[: select.PIPE_BUF]) :]
    except OSError as error:
        raise Closed from error


def receive(
    descriptor: int, seconds: float | None = None, *, max_head: int = MAX_HEAD, max_blob: int = MAX_BLOB
) -> tuple[Message, list[bytes]]:
    """Read one message, within `seconds` if given. Raises Closed, Late or Nonsense."""
    end = None if seconds is None else time.monotonic() + seconds
    (length,) = struct.unpack(">Q", _exactly(descriptor, 8, end))
    if length > max_head:
        raise Nonsense(f"a message of {length} bytes")
    try:
        message = json.loads(_exactly(descriptor, length, end))
        sizes = [int(size) for size in message.pop("sizes")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Nonsense(f"a message that is no JSON object: {error}") from error
    if any(size < 0 for size in sizes) or sum(sizes) > max_blob:
        raise Nonsense(f"{sum(sizes)} bytes with a message")
    return message, [_exactly(descriptor, size, end) for size in sizes]


def _ready(descriptor: int, what: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, what)
    return bool(poll.poll(1000 * seconds))


def _exactly(descriptor: int, count: int, end: float | None) -> bytes:
    parts: list[bytes] = []
    while count:
        left = None if end is None else end - time.monotonic()
        if left is not None and (left <= 0 or not _ready(descriptor, select.POLLIN, left)):
            raise Late
        try:
            part = os.read(descriptor, min(count, 1 << 20))
        except OSError as error:
            raise Closed from error
        if not part:
            raise Closed
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
