"""All verbs: each of these modules puts its own into the application."""

from warpsmith.cli import agents, archives, judging, machine, search, suites
from warpsmith.cli.common import app

__all__ = ["agents", "app", "archives", "judging", "machine", "search", "suites"]
