"""Evolution: a population of programs, whom to ask for the next ones, and when to stop."""

from warpsmith.evolve.bandit import Arm, Bandit
from warpsmith.evolve.dial import Dial, turn
from warpsmith.evolve.events import (
    AnswerRefused,
    BestImproved,
    CandidateJudged,
    CandidateLost,
    CandidatePassedOver,
    Event,
    GenerationStarted,
    LessonLearnt,
    Observer,
    Progress,
    StageFinished,
    StageStarted,
    Stopped,
    TaskLoaded,
    Waiting,
    ignore,
)
from warpsmith.evolve.executor import Executor
from warpsmith.evolve.generation import Problem
from warpsmith.evolve.islands import Islands
from warpsmith.evolve.journal import Journal
from warpsmith.evolve.ledger import Ledger
from warpsmith.evolve.lessons import Lesson, Lessons
from warpsmith.evolve.loop import Evolution
from warpsmith.evolve.operators import INHERITED, SEARCH, arms_of
from warpsmith.evolve.population import Population
from warpsmith.evolve.stop import Standing, StopCondition, any_of, money, near_bound

__all__ = [
    "INHERITED",
    "SEARCH",
    "AnswerRefused",
    "Arm",
    "Bandit",
    "BestImproved",
    "CandidateJudged",
    "CandidateLost",
    "CandidatePassedOver",
    "Dial",
    "Event",
    "Evolution",
    "Executor",
    "GenerationStarted",
    "Islands",
    "Journal",
    "Ledger",
    "Lesson",
    "LessonLearnt",
    "Lessons",
    "Observer",
    "Population",
    "Problem",
    "Progress",
    "StageFinished",
    "StageStarted",
    "Standing",
    "StopCondition",
    "Stopped",
    "TaskLoaded",
    "Waiting",
    "any_of",
    "arms_of",
    "ignore",
    "money",
    "near_bound",
    "turn",
]
