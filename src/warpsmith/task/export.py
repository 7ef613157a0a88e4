"""Calling `torch.export` on a module, quietly."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

from warpsmith.task.usercode import Blame


def export(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], file: str | None, name: str
) -> ExportedProgram:
    """Export `module` for the shapes of its example arguments. Raises TaskError with the line to blame."""
    with quiet(), torch.no_grad(), Blame(f"{name}.forward", file, "cannot be exported:"):
        exported: ExportedProgram = torch.export.export(module, args, kwargs, strict=False).run_decompositions({})
        return exported


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch logs, warns and prints about an export off the terminal: its error says it once."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
