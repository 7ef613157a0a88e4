"""A judge for one agent and one task, for as long as a question takes.

Beside the task's own inputs, which anybody can draw, it judges on others than the judgement that counts, which the
search asks for later with its own seed: what an agent finds out here of inputs and outputs is of no use to it there.
The agent is told verdicts, and has one tool.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import SocketStream

from warpsmith.device.choose import choose
from warpsmith.errors import MachineError
from warpsmith.evolve import Executor
from warpsmith.evolve.generation import plain_errors
from warpsmith.pipeline import MakeExecutor, local_executor
from warpsmith.records import Candidate, GpuSpec, Judged, Lineage, Task
from warpsmith.server import relay
from warpsmith.server.answers import Judgement
from warpsmith.server.plain import PlainServer
from warpsmith.server.programs import KernelText, PlanText, Tunables, candidate_of
from warpsmith.server.telling import judgement_of
from warpsmith.settings import Settings
from warpsmith.task import bound

_INSTRUCTIONS: Final = "Judges CUDA programs for the task in task.md. Have yours judged until it passes and is fast."
_SEEDS: Final = 1 << 31


class JudgingDesk:
    """Judges for one task, one program at a time. The worker starts with the first program."""

    def __init__(self, task: Task, gpu: GpuSpec, settings: Settings, socket: Path, make: MakeExecutor) -> None:
        self._task = task
        self._settings = settings.model_copy(update={"workers": 1, "seed": secrets.randbelow(_SEEDS)})
        self._bound = bound(task, gpu)
        self._socket = socket
        self._make = make
        self._executor: Executor | None = None
        self._judged: dict[str, Judged] = {}
        self._turn = anyio.Lock()

    @property
    def command(self) -> tuple[str, ...]:
        """What the agent starts to speak MCP with the desk."""
        # Isolated, since the agent's environment and folder are its own.
        return (sys.executable, "-I", str(Path(relay.__file__).resolve()), str(self._socket))

    @property
    def best(self) -> Candidate | None:
        """The fastest program that passed so far, or None."""
        passed = [each for each in self._judged.values() if each.verdict.passed]
        return min(passed, key=lambda each: each.seconds).candidate if passed else None

    async def judge_program(self, kernel_cu: KernelText, plan_toml: PlanText, tunables: Tunables = None) -> Judgement:
        """Judge a program for the task: is it right, and how fast is it?

        The answer says at which stage and why it failed, or its time and what limits it.
        """
        hybrid = self._settings.hybrid
        candidate = candidate_of(self._task.key, kernel_cu, plan_toml, tunables, Lineage("", ""), hybrid=hybrid)
        async with self._turn:
            known = self._judged.get(candidate.key)
            if known is None:
                executor = await anyio.to_thread.run_sync(self._ready)
                known = self._judged[candidate.key] = Judged(candidate, await executor.judge(candidate))
                return judgement_of(known, self._bound, known=False)
        return judgement_of(known, self._bound, known=True)

    def close(self) -> None:
        """End the worker."""
        if self._executor is not None:
            self._executor.close()

    def _ready(self) -> Executor:
        if self._executor is None:
            choice = choose(self._settings.device, simulate=self._settings.simulate)
            self._executor = self._make(self._task, choice, self._settings, False)
        return self._executor


@contextlib.asynccontextmanager
async def open_desk(
    task: Task, gpu: GpuSpec, *, settings: Settings, make_executor: MakeExecutor = local_executor
) -> AsyncIterator[JudgingDesk]:
    """Serve a desk on a socket that only this user can reach, until the block ends.

    Raises MachineError where there can be no socket.
    """
    with plain_errors(), tempfile.TemporaryDirectory(prefix="warpsmith-desk-", ignore_cleanup_errors=True) as name:
        socket = Path(name) / "socket"
        desk = JudgingDesk(task, gpu, settings, socket, make_executor)
        server = PlainServer(_INSTRUCTIONS, [desk.judge_program])

        async def attend(stream: SocketStream) -> None:
            async with stream:
                await server.speak(stream)

        try:
            listener = await anyio.create_unix_listener(socket, mode=0o600)
        except OSError as error:
            raise MachineError(f"there can be no socket for an agent in {name}: {error.strerror or error}") from error
        try:
            async with listener, anyio.create_task_group() as group:
                group.start_soon(listener.serve, attend)
                yield desk
                group.cancel_scope.cancel()
        finally:
            desk.close()
