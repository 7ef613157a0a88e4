"""The order for one task, as the process that does it gets it, and the row of a task that brought nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from warpsmith.archive.codec import decode, encode
from warpsmith.bench.row import MESSAGE, Row, Status
from warpsmith.records import MODES, Mode


@dataclass(frozen=True, slots=True)
class Order:
    """One task to do. `settings` is JSON text, `results` a folder for kernel and report, `memory` bytes.

    `baselines` are the modes of the baselines that the best program is measured against. Without `builtin` the built-in
    author is not asked; `retrieve` and `without` are those of `optimize`.
    """

    name: str
    target: str
    source_hash: str
    fingerprint: str
    settings: str
    results: str
    level: int | None
    number: int | None
    memory: int | None
    baselines: tuple[Mode, ...] = MODES
    builtin: bool = True
    retrieve: bool = True
    without: tuple[str, ...] = ()


def encode_order(order: Order) -> str:
    """Return an order as JSON text."""
    return encode(order)


def decode_order(text: str) -> Order:
    """Return the order that `encode_order` wrote."""
    return decode(Order, text)


def empty_row(order: Order, device: str, status: Status, message: str, spent: float) -> Row:
    """Return the row of a task that brought no program."""
    return Row(
        name=order.name,
        source_hash=order.source_hash,
        fingerprint=order.fingerprint,
        status=status,
        device=device,
        spent=spent,
        finished=now(),
        level=order.level,
        number=order.number,
        message=short(message),
    )


def now() -> str:
    """Return the time in UTC to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def short(text: str) -> str:
    """Return a message no longer than a row keeps."""
    return text if len(text) <= MESSAGE else text[: MESSAGE - 1] + "…"
