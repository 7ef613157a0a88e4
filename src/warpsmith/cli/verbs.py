"""All verbs: each of these modules puts its own into the application."""

from warpsmith.cli import agents, archives, contests, judging, machine, search, suites
from warpsmith.cli.common import app

__all__ = ["agents", "app", "archives", "contests", "judging", "machine", "search", "suites"]
