"""Solutions with host code, judged in a sandbox."""

from warpsmith.judge.foreign.judge import judge_foreign

__all__ = ["judge_foreign"]
