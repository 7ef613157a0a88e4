"""The judge's end of a runner: starts it, asks it, ends it with everything in it, and has the next one ready.

After a fault the process is never used again. A spare is started as soon as one is needed no more, so that a third of
all candidates may crash without anybody waiting for a start.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith import wire
from warpsmith.child import Child, interpreter
from warpsmith.errors import MachineError

_START_SECONDS = 60.0
_MODULE = "warpsmith.device.cuda.runner"


class Fault(Exception):
    """A call did not come back in order: `name` is the driver's error, `timeout`, `died` or `nonsense`."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class RunnerProcess:
    """One runner at a time, replaced after a fault. `prefix` is a command to start it under, such as a profiler's."""

    def __init__(self, ordinal: int, *, prefix: Sequence[str] = (), spare: bool = True) -> None:
        self._command = [*prefix, *interpreter(_MODULE), str(ordinal)]
        self._wants_spare = spare
        self._under_tool = bool(prefix)
        self._child: Child | None = None
        self._ready = False
        self._spare: Child | None = None
        self.started = 0

    def start(self) -> None:
        """Make sure that a runner is there. Raises MachineError where none can be started."""
        if self._child is not None and not self._child.alive:
            self.kill()
        if self._spare is not None and not self._spare.alive:
            self._spare.kill()
            self._spare = None
        if self._child is not None and self._ready:
            return
        if self._child is None:
            self._child, self._spare = self._spare or Child(self._command), None
            self.started += 1
        try:
            answer, _ = self._child.receive(_START_SECONDS, max_blob=0)
        except (wire.Closed, wire.Late, wire.Nonsense) as error:
            why = self._child.epitaph()
            self.kill()
            raise MachineError(f"the GPU's runner does not start: it {why}") from error
        if "ready" not in answer:
            self.kill()
            raise MachineError(f"the GPU cannot be used: {answer.get('call', answer)}")
        self._ready = True
        if self._wants_spare and self._spare is None:
            self._spare = Child(self._command)

    def ask(
        self, message: wire.Message, *blobs: bytes, seconds: float, max_blob: int = 1 << 16
    ) -> tuple[wire.Message, list[bytes]]:
        """Ask the runner something. Raises Fault where the answer is an error or there is none; it is dead then."""
        if self._child is None or not self._ready:
            self.start()
        assert self._child is not None
        try:
            answer, data = self._child.ask(message, *blobs, seconds=seconds, max_blob=max_blob)
        except wire.Late:
            self.kill()
            raise Fault("timeout", f"no answer within {seconds:.3g} s") from None
        except wire.Closed:
            why = self._child.epitaph()
            self.kill()
            raise Fault("died", f"the runner {why}") from None
        except wire.Nonsense as error:
            self.kill()
            raise Fault("nonsense", str(error)) from None
        if "error" in answer:
            # A tool around the runner writes its report when that ends.
            self.finish() if self._under_tool else self.kill()
            raise Fault(str(answer["error"]), str(answer.get("call", "")))
        return answer, data

    @property
    def pid(self) -> int | None:
        """The runner's process number, for tests that kill it."""
        return self._child.pid if self._child is not None else None

    def kill(self) -> None:
        """End the runner; the next question starts another."""
        if self._child is not None:
            self._child.kill()
        self._child, self._ready = None, False

    def finish(self, seconds: float = 30.0) -> None:
        """Let the runner end by itself, so that a tool around it can write its report; then end it."""
        if self._child is not None:
            self._child.close()
            self._child.wait(seconds)
        self.kill()

    def close(self) -> None:
        """End the runner and the spare."""
        self.kill()
        if self._spare is not None:
            self._spare.kill()
            self._spare = None
