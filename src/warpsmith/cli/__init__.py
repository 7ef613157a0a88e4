"""The command line. Verbs only; each parses its flags and calls one public function.

Exit codes: 0 done, 1 a judged program did not pass, 2 the caller can mend it, 3 the machine failed, 130 Ctrl-C.
"""

from __future__ import annotations

from warpsmith.cli.verbs import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    app(prog_name="warpsmith")
