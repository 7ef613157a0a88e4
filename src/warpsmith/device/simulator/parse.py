"""Parse PTX text into a `Module`.

The grammar is that of the PTX ISA (version 9.0), as far as NVRTC uses it. Nothing is interpreted here: an unknown
opcode parses, and whoever decodes it complains.
"""

from __future__ import annotations

import re

from warpsmith.device.simulator.body import BodyReader
from warpsmith.device.simulator.ptx import Function, Module, Variable
from warpsmith.errors import SimulatorError


def parse(text: str) -> Module:
    """Parse a PTX module. Raises SimulatorError naming what cannot be parsed."""
    return _ModuleReader(text).module()


class _ModuleReader(BodyReader):
    """Reads what stands at the top level."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.functions: dict[str, Function] = {}
        self.globals: dict[str, Variable] = {}
        self.main_file = self._main_file(text)

    @staticmethod
    def _main_file(text: str) -> int:
        """The number of the device code's file: kernels stand in it, whatever headers were inlined into them."""
        found = re.search(r"\.entry\b.*?\.loc\s+(\d+)", text, re.DOTALL)
        return int(found[1]) if found else 1

    def module(self) -> Module:
        """Read the whole text."""
        while self.next:
            token = self.take()
            if token in (".version", ".target", ".address_size"):
                self._skip_target(token)
            elif token == ".file":
                self._skip_file()
            elif token == ".section":
                self._skip_section()
            elif token in (".visible", ".extern", ".weak", ".common"):
                continue
            elif token in (".entry", ".func"):
                self._function(entry=token == ".entry")
            elif token in (".global", ".const", ".shared"):
                extern = self.tokens[self.position - 2] == ".extern"
                for variable in self.variables(token, extern):
                    self.globals[variable.name] = variable
            elif token in (".pragma", ".alias"):
                while self.take() != ";":
                    pass
            else:
                raise SimulatorError(f"PTX: unexpected {token!r} at module level")
        return Module(self.functions, self.globals)

    def _skip_target(self, token: str) -> None:
        self.take()
        while token == ".target" and self.accept(","):
            self.take()

    def _skip_file(self) -> None:
        self.take()
        self.take()
        while self.accept(","):
            self.take()

    def _skip_section(self) -> None:
        self.take()
        self.expect("{")
        depth = 1
        while depth:
            token = self.take()
            depth += {"{": 1, "}": -1, "": -depth}.get(token, 0)

    def _function(self, *, entry: bool) -> None:
        returns = self.parameters() if self.next == "(" else ()
        name = self.take()
        parameters = self.parameters() if self.next == "(" else ()
        max_threads: tuple[int, ...] = ()
        cluster: tuple[int, ...] = ()
        while self.next not in ("{", ";"):
            token = self.take()
            if token in (".maxntid", ".reqntid"):
                max_threads = self._extents_of_launch()
            elif token == ".reqnctapercluster":
                cluster = self._extents_of_launch()
        if self.accept(";"):
            self.functions.setdefault(name, Function(name, entry, returns, parameters, {}, (), (), {}))
            return
        body = self.body()
        self.functions[name] = Function(
            name,
            entry,
            returns,
            parameters,
            body.registers,
            tuple(body.variables),
            tuple(body.items),
            body.targets,
            max_threads,
            cluster,
        )

    def _extents_of_launch(self) -> tuple[int, ...]:
        values = [self.integer()]
        while self.accept(","):
            values.append(self.integer())
        return tuple(values)
