"""One way to set up Jinja, for pages of HTML and of Markdown."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment_for(*folders: Path, html: bool = False) -> Environment:
    """Return an environment for the templates in `folders`, in which a name without a value is an error.

    Only for `html` values are escaped: in Markdown, whoever fills in what others wrote quotes it.
    """
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
