"""Starts the server, and agents that are served."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from warpsmith.errors import SettingsError

if TYPE_CHECKING:
    from warpsmith.author.agent import AgentLimits, HeadlessAgent
    from warpsmith.pipeline import MakeExecutor
    from warpsmith.server.plain import PlainServer
    from warpsmith.settings import Settings

Transport = Literal["stdio", "streamable-http"]
STDIO: Final = "stdio"
HTTP: Final = "streamable-http"
PORT: Final = 8321

_HOST: Final = "127.0.0.1"
_MAX_NAME: Final = 60


def skill() -> str:
    """Return the text that tells an agent how to work with Warpsmith, as Markdown with front matter."""
    return (Path(__file__).parent / "skill.md").read_text(encoding="utf-8")


def serve(
    settings: Settings,
    root: str | Path = ".",
    *,
    transport: Transport = STDIO,
    port: int = PORT,
    author: str = "agent",
) -> None:
    """Serve until the client is gone. Task files are those under `root`, and no other file is read or run.

    What is proposed goes into the archive of the settings in the name of `author`. Over HTTP the server listens on
    this machine alone, at `port`. Raises SettingsError where `root` is no folder, a value makes no sense, or the SDK of
    MCP is not installed.
    """
    if transport not in get_args(Transport):
        raise SettingsError(f"there is no transport {transport!r}; known are {', '.join(get_args(Transport))}")
    with server_for(settings, root, author=author) as server:
        if transport == STDIO:
            server.run(STDIO)
        else:
            server.run(HTTP, host=_HOST, port=port)


@contextlib.contextmanager
def server_for(
    settings: Settings, root: str | Path, *, author: str = "agent", make_executor: MakeExecutor | None = None
) -> Iterator[PlainServer]:
    """Yield the server; at the end, archive and judges are closed. `make_executor` judges elsewhere than here."""
    from warpsmith.archive import Archive
    from warpsmith.device.choose import choose
    from warpsmith.pipeline import local_executor
    from warpsmith.server.judges import Judges
    from warpsmith.server.proposing import Proposing
    from warpsmith.server.reading import Reading
    from warpsmith.server.shelf import Shelf

    try:
        from warpsmith.server.tools import build
    except ModuleNotFoundError as error:
        raise SettingsError(f"serving agents needs the package {error.name}: pip install 'warpsmith[mcp]'") from error

    root = Path(root)
    if not root.is_dir():
        raise SettingsError("there is no such folder", file=str(root))
    if not (author.strip() and author.isprintable() and len(author) <= _MAX_NAME):
        raise SettingsError(f"an author has a name of 1 to {_MAX_NAME} printable characters, not {author!r}")
    choice = choose(settings.device, simulate=settings.simulate)
    with Archive.open(settings.archive) as archive:
        shelf = Shelf(root, archive, choice)
        judges = Judges(archive, settings, choice, make_executor or local_executor)
        try:
            reading = Reading(shelf, archive, choice, hybrid=settings.hybrid)
            yield build(reading, Proposing(shelf, judges, reading, choice, author=author, hybrid=settings.hybrid))
        finally:
            judges.close()


def headless_agent(
    command: Sequence[str],
    settings: Settings,
    limits: AgentLimits | None = None,
    *,
    environment: Sequence[str] = (),
    name: str | None = None,
    expected_usd: float = 0.0,
) -> HeadlessAgent:
    """Return an author that starts `command` for each question, with this machine's judge as its tool.

    See `warpsmith.author.agent.HeadlessAgent`. Raises SettingsError for a command that cannot be started.
    """
    from warpsmith.author.agent import HeadlessAgent

    try:
        from warpsmith.server.desk import open_desk
    except ModuleNotFoundError as error:
        raise SettingsError(f"serving agents needs the package {error.name}: pip install 'warpsmith[mcp]'") from error

    return HeadlessAgent(
        command,
        partial(open_desk, settings=settings),
        limits,
        environment=environment,
        name=name,
        hybrid=settings.hybrid,
        expected_usd=expected_usd,
    )
