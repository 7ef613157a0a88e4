"""What was found, to look at: live displays, reports, output folders and listings of the archive."""

from warpsmith.explore.display import Display, LiveDisplay, PlainDisplay, display_for
from warpsmith.explore.listing import render_key, render_list
from warpsmith.explore.outcome import Outcome, outcome_from_archive
from warpsmith.explore.output import folder_for, write_results
from warpsmith.explore.report import render_report
from warpsmith.explore.summary import render_best, render_summary
from warpsmith.explore.tally import FinishedStage, Tally

__all__ = [
    "Display",
    "FinishedStage",
    "LiveDisplay",
    "Outcome",
    "PlainDisplay",
    "Tally",
    "display_for",
    "folder_for",
    "outcome_from_archive",
    "render_best",
    "render_key",
    "render_list",
    "render_report",
    "render_summary",
    "write_results",
]
