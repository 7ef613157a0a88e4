"""Authors and judges without a network path to each other: questions, answers, candidates and verdicts as files."""

from warpsmith.archive.merge import Merged
from warpsmith.exchange.ask import Asked, ask
from warpsmith.exchange.bundle import BundleJudged, bundle, judge_bundle
from warpsmith.exchange.display import render_progress, render_told
from warpsmith.exchange.judging import Progress
from warpsmith.exchange.merge import merge
from warpsmith.exchange.standing import TaskStanding, render_standing, standing_of
from warpsmith.exchange.tell import Answer, Told, tell

__all__ = [
    "Answer",
    "Asked",
    "BundleJudged",
    "Merged",
    "Progress",
    "TaskStanding",
    "Told",
    "ask",
    "bundle",
    "judge_bundle",
    "merge",
    "render_progress",
    "render_standing",
    "render_told",
    "standing_of",
    "tell",
]
