"""Source code in colour, as HTML."""

from __future__ import annotations

from typing import Any, Literal

import pygments
import pygments.formatters
import pygments.lexers
from markupsafe import Markup

CSS_CLASS = "code"
# Pygments carries no annotations; this keeps that out of everything else.
_pygments: Any = pygments


def highlight(text: str, language: Literal["cuda", "python", "toml"]) -> Markup:
    """Return source with line numbers. Pygments escapes the text, so the result may stand in a page as it is."""
    formatter = _pygments.formatters.HtmlFormatter(cssclass=CSS_CLASS, linenos="inline")
    return Markup(_pygments.highlight(text, _pygments.lexers.get_lexer_by_name(language), formatter))


def style_sheet(style: str) -> Markup:
    """Return the CSS rules of a Pygments style for what `highlight` returns."""
    return Markup(_pygments.formatters.HtmlFormatter(style=style).get_style_defs(f".{CSS_CLASS}"))
