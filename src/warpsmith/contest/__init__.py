"""Contests: sets of authors that search the same tasks with equal budgets, and what came of it."""

from warpsmith.contest.arms import Arm, arms_for, parse_arm
from warpsmith.contest.figures import ArmFigures, OperatorFigures, figures, operator_figures, outcome
from warpsmith.contest.folder import Contest, ContestFolder, is_contest, load_contest
from warpsmith.contest.plan import Rules, Search, schedule
from warpsmith.contest.run import run_contest
from warpsmith.contest.tables import document, render_contest, write_contest
from warpsmith.contest.trial import Gain, Trial

__all__ = [
    "Arm",
    "ArmFigures",
    "Contest",
    "ContestFolder",
    "Gain",
    "OperatorFigures",
    "Rules",
    "Search",
    "Trial",
    "arms_for",
    "document",
    "figures",
    "is_contest",
    "load_contest",
    "operator_figures",
    "outcome",
    "parse_arm",
    "render_contest",
    "run_contest",
    "schedule",
    "write_contest",
]
