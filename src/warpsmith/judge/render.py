"""A verdict for people, on one screen: what is wrong, where, and in which line of the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from warpsmith.records import Candidate, Diagnostic, Failure, Stage, Timing, Verdict
from warpsmith.task import Admission

_SHOWN_DIAGNOSTICS = 5


def render(
    verdict: Verdict,
    candidate: Candidate | None = None,
    admission: Admission | None = None,
    restrictions: Sequence[str] = (),
) -> RenderableType:
    """Return a verdict as a Rich renderable.

    With the candidate, source lines are quoted. With the task's admission, a task that does not depend on its
    arguments, or only on some families of inputs, is marked: passing says less there. `restrictions` are those of the
    task: in what it differs from its module.
    """
    source = candidate.program.source if candidate else ""
    parts: list[RenderableType] = [_headline(verdict)]
    if verdict.failure is not None:
        parts.append(_failure(verdict.failure, source))
    if verdict.families:
        parts.append(_families(verdict))
    if not verdict.contained:
        parts.append(Text("host code: not contained. Its process could not be kept from everything.", style="yellow"))
    if verdict.library_share is not None:
        parts.append(
            Text.assemble(("Hybrid", "bold"), f": library calls take {verdict.library_share:.0%} of the time.")
        )
    if verdict.sanitized:
        parts.append(Text.assemble(("Sanitized ", "bold"), f"by {verdict.sanitized}."))
    elif verdict.passed and verdict.timing is not None and verdict.timing.source == "measured" and verdict.contained:
        parts.append(Text("No sanitizer has looked at it: the task is too large for the simulator.", style="yellow"))
    if verdict.timing is not None and verdict.timing.clocks_of:
        parts.append(_clocks(verdict.timing))
    if verdict.profile is not None:
        parts.append(Text.assemble(("Bottleneck ", "bold"), f"{verdict.profile.bottleneck}. {verdict.profile.advice}"))
    if admission is not None and not (admission.admitted and admission.nominal):
        parts.append(_mark(admission))
    parts += [Text(f"Not the same as in the module: {each}.", style="yellow") for each in restrictions]
    parts.append(_stages(verdict))
    return Panel(Group(*parts), title=f"candidate {verdict.candidate_key}", title_align="left")


def render_time(timing: Timing) -> str:
    """Return a timing in words, which say whether it was measured or estimated."""
    low, high = timing.interval
    return f"{timing.source} {_micro(timing.median)} ({_micro(low)} to {_micro(high)}) on {timing.device}"


def quote(source: str, line: int, column: int = 0) -> str:
    """Return a line of the source with its number, and a caret below `column` (1-based) if there is one."""
    lines = source.splitlines()
    if not 1 <= line <= len(lines):
        return ""
    prefix = f"{line:>5} | "
    text = prefix + lines[line - 1].expandtabs(4)
    if column < 1:
        return text
    return text + "\n" + " " * (len(prefix) - 2) + "| " + " " * (column - 1) + "^"


def _clocks(timing: Timing) -> Text:
    """Return what each clock says, and what the GPU did meanwhile."""
    clocks = ", ".join(f"{name} {_micro(seconds)}" for name, seconds in timing.clocks_of)
    text = Text.assemble(("Clocks ", "bold"), clocks)
    if timing.states:
        last = timing.states[-1]
        text.append(f"; SM {last.sm_clock} MHz, memory {last.memory_clock} MHz, {last.temperature} °C")
        reasons = sorted({reason for state in timing.states for reason in state.throttle})
        text.append(f"; throttled: {', '.join(reasons)}" if reasons else "")
    return text


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} µs"


def _headline(verdict: Verdict) -> Text:
    if verdict.timing is not None:
        return Text.assemble(("passed", "bold green"), f": {render_time(verdict.timing)}")
    assert verdict.failure is not None
    stage = verdict.failure.stage.name.lower()
    return Text.assemble(("failed", "bold red"), " at stage ", (stage, "bold"), f": {verdict.failure.reason}")


def _failure(failure: Failure, source: str) -> Group:
    return Group(*_failure_parts(failure, source))


def _failure_parts(failure: Failure, source: str) -> Iterator[RenderableType]:
    yield Text(failure.message)
    if failure.mismatch is not None:
        mismatch = failure.mismatch
        grid = Table.grid(padding=(0, 2))
        index = ", ".join(map(str, mismatch.index))
        grid.add_row("first bad element", f"{mismatch.output}[{index}]")
        grid.add_row("expected", f"{mismatch.expected:.9g}")
        grid.add_row("got", f"{mismatch.got:.9g}")
        grid.add_row("wrong", f"{mismatch.wrong} of {mismatch.total} elements")
        yield grid
    if failure.family is not None:
        yield Text(f"inputs: family {failure.family}, seed {failure.seed}")
    if failure.finding is not None and failure.finding.line:
        yield Text(quote(source, failure.finding.line), style="cyan")
    for diagnostic in failure.diagnostics[:_SHOWN_DIAGNOSTICS]:
        yield from _diagnostic(diagnostic, source)
    hidden = len(failure.diagnostics) - _SHOWN_DIAGNOSTICS
    if hidden > 0:
        yield Text(f"and {hidden} more messages of the compiler")


def _diagnostic(diagnostic: Diagnostic, source: str) -> Iterator[RenderableType]:
    style = "red" if diagnostic.severity == "error" else "yellow"
    place = f"line {diagnostic.line}: " if diagnostic.line else ""
    yield Text(f"{diagnostic.severity}: {place}{diagnostic.message}", style=style)
    quoted = quote(source, diagnostic.line, diagnostic.column)
    if quoted:
        yield Text(quoted, style="cyan")


def _families(verdict: Verdict) -> Table:
    table = Table("inputs", "seed", "error", "PyTorch's error", "limit", box=None, header_style="dim")
    for result in verdict.families:
        style = "" if result.error <= result.limit else "red"
        numbers = (f"{value:.3g}" for value in (result.error, result.reference_error, result.limit))
        table.add_row(result.family, str(result.seed), *numbers, style=style)
    return table


def _mark(admission: Admission) -> Text:
    text = Text("Marked: ", style="yellow")
    if admission.degenerate:
        text.append(f"no family of inputs shows that the outputs depend on {', '.join(admission.degenerate)}. ")
    if admission.constant:
        text.append(f"Output {', '.join(admission.constant)} is constant. ")
    if admission.admitted:
        text.append("The task's own inputs do not show all that it depends on; other families do.")
    return text


def _stages(verdict: Verdict) -> Text:
    done = dict(verdict.seconds)
    text = Text(style="dim")
    for stage in Stage:
        name = stage.name.lower()
        took = f" {done[name]:.2f} s" if name in done else " not reached"
        text.append(("" if stage == Stage.SCREEN else " · ") + name + took)
    return text
