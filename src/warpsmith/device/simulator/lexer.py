"""PTX text as a list of tokens, and the literals and lists that everything is made of."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from warpsmith.device.simulator.ptx import Float, Integer
from warpsmith.errors import SimulatorError

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<string>"[^"]*")
      | (?P<number>0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+U?|\d+\.\d*(?:[eE][-+]?\d+)?|\d+U?)
      | (?P<name>[%$_.A-Za-z][\w$.]*(?:::[\w.]+)*)
      | (?P<sign>[-+{}()\[\],;:|!=<>@*~&^])""",
    re.VERBOSE | re.DOTALL,
)


class Tokens:
    """A list of tokens and a place in it."""

    def __init__(self, text: str) -> None:
        self.tokens = list(self._tokenize(text))
        self.position = 0

    @staticmethod
    def _tokenize(text: str) -> Iterator[str]:
        position = 0
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                raise SimulatorError(f"not PTX: {text[position : position + 40]!r}")
            position = match.end()
            if match.lastgroup != "space":
                yield match[0]

    @property
    def next(self) -> str:
        """The token here; an empty string at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        """Return the token here and go on."""
        token = self.next
        self.position += 1
        return token

    def accept(self, token: str) -> bool:
        """Go on if this is the token here; return whether it was."""
        if self.next == token:
            self.position += 1
            return True
        return False

    def expect(self, token: str) -> None:
        """Go on if this is the token here. Raises SimulatorError if it is not."""
        if not self.accept(token):
            around = " ".join(self.tokens[max(0, self.position - 8) : self.position + 3])
            raise SimulatorError(f"PTX: expected {token!r} but found {self.next!r} near `{around}`")

    def integer(self) -> int:
        """Read an integer with its signs."""
        if self.accept("-"):
            return -self.integer()
        if self.accept("+"):
            return self.integer()
        return int(self.take().rstrip("U"), 0)

    def number(self) -> Integer | Float:
        """Read a literal with its signs."""
        if self.accept("-"):
            value = self.number()
            if isinstance(value, Float):
                return Float(value.bits ^ (1 << (value.width - 1)), value.width)
            return Integer(-value.value)
        self.accept("+")
        token = self.take()
        if token[:2] in ("0f", "0F"):
            return Float(int(token[2:], 16), 32)
        if token[:2] in ("0d", "0D"):
            return Float(int(token[2:], 16), 64)
        if "." in token:
            return Float(struct.unpack("<Q", struct.pack("<d", float(token)))[0], 64)
        return Integer(int(token.rstrip("U"), 0))


def join(tokens: list[str]) -> str:
    """Write tokens as one would by hand."""
    text = " ".join(tokens)
    for sign in (",", "]", ")", "}"):
        text = text.replace(f" {sign}", sign)
    for sign in ("[", "(", "{", "@", "!", "-"):
        text = text.replace(f"{sign} ", sign)
    return text.replace(" + ", "+")
