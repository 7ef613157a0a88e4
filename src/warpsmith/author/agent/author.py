"""A coding agent as an author: each question is a scratch folder in which the agent's program is started."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Final

from warpsmith.author.agent.answer import read_answer, read_cost
from warpsmith.author.agent.desk import OpenDesk
from warpsmith.author.agent.folder import check_command, environment_in, filled, lay_out
from warpsmith.author.agent.limits import AgentLimits
from warpsmith.author.agent.process import Ending, run
from warpsmith.author.agent.words import question, task_page
from warpsmith.author.llm.secrets import HIDDEN, without_secrets
from warpsmith.author.protocol import OPERATORS, Context, Proposal, Refusal
from warpsmith.errors import SettingsError
from warpsmith.records import Candidate

_SHORTEST_SECRET = 8
"""Characters. What is shorter would be found in ordinary text."""


class HeadlessAgent:
    """Starts `command`, a list of arguments, for every question.

    In the arguments `{prompt}` stands for a sentence that sends the agent to its question, `{prompt_file}` for the file
    with the question, `{folder}` for the scratch folder, in which it starts, and `{mcp_config}` for the description of
    the judge in the form that agents take MCP servers in. A brace that means nothing is doubled.

    `open_desk` serves the judge to the agent. It sees PATH, a home in its folder, and the variables named in
    `environment`, such as its key, whose values are kept out of what is stored. `hybrid` allows programs that call a
    library. `expected_usd` is what an answer is taken to cost before the first bill; what it did cost the agent may say
    itself. Raises SettingsError for a command that cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        open_desk: OpenDesk,
        limits: AgentLimits | None = None,
        *,
        environment: Sequence[str] = (),
        name: str | None = None,
        hybrid: bool = False,
        expected_usd: float = 0.0,
    ) -> None:
        check_command(command)
        program = shutil.which(command[0])
        if program is None:
            raise SettingsError(f"there is no program {command[0]!r} that could be started as an agent")
        # Agents start in a folder of their own, where a relative path would mean something else.
        self._command = (str(Path(program).absolute()), *command[1:])
        self._open_desk = open_desk
        self._limits = limits or AgentLimits()
        self._environment = tuple(environment)
        self.name: Final = name or f"agent:{PurePath(command[0]).name}"
        self.operators: Final = dict(OPERATORS)
        self.expected_usd: Final = expected_usd
        self._hybrid = hybrid

    def __repr__(self) -> str:
        return f"HeadlessAgent({self.name!r})"

    async def propose(self, context: Context) -> Proposal | Refusal | None:
        """Put the question to the agent. None where there are too few parents. Cancelled, it kills the agent.

        Raises KeyError for an operator that is not on offer.
        """
        if len(context.parents) < OPERATORS[context.operator]:
            return None
        asked = question(context, self._limits, hybrid=self._hybrid)
        if asked is None:
            return Refusal("the task is too large for a question")
        task = task_page(context, hybrid=self._hybrid)
        prompt = f"{asked}\n{task}"
        async with self._open_desk(context.task, context.gpu) as desk:
            with tempfile.TemporaryDirectory(prefix="warpsmith-agent-", ignore_cleanup_errors=True) as name:
                folder = Path(name).resolve()
                lay_out(folder, asked, task, [each.candidate.program for each in context.parents], desk.command)
                environment = environment_in(folder, self._environment)
                try:
                    ending = await run(filled(self._command, folder), folder, environment, self._limits)
                except OSError as error:
                    return Refusal(f"the agent could not be started: {error.strerror}", prompt)
                return self._answer(folder, ending, desk.best, prompt)

    def _answer(self, folder: Path, ending: Ending, best: Candidate | None, prompt: str) -> Proposal | Refusal:
        """Return what the agent left; of one that was stopped, or left nothing usable, its best judged program."""
        answer = read_answer(folder, hybrid=self._hybrid)
        reply = self._hidden(ending.printed)
        cost = read_cost(folder, self._limits.most_usd)
        if answer.program is not None and not ending.stopped:
            values = tuple(answer.program.plan.defaults.items())
            return Proposal(answer.program, values, None, prompt, reply, self._hidden(answer.note), cost)
        why = f"the agent was stopped: {ending.stopped}" if ending.stopped else answer.complaint
        if best is not None:
            note = f"the best that the agent had judged; {why}"
            return Proposal(best.program, best.tunables, None, prompt, reply, note, cost)
        if not ending.stopped and ending.code:
            why += f"; the agent ended with code {ending.code}"
        return Refusal(self._hidden(why), prompt, reply, cost)

    def _hidden(self, text: str) -> str:
        """Return a text without the values that were passed on to the agent."""
        values = [os.environ.get(name, "") for name in self._environment]
        for value in sorted(values, key=len, reverse=True):
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, HIDDEN)
        return without_secrets(text)
