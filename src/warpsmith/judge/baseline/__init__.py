"""The baseline: the task's original module, eager and compiled, timed in a process of its own.

Neither the judge nor a candidate shares it: it holds the user's code and whatever `torch.compile` makes of that.
"""

from warpsmith.judge.baseline.baselines import Baselines, Facts
from warpsmith.judge.baseline.cache import BaselineCache, BaselineKey

__all__ = ["BaselineCache", "BaselineKey", "Baselines", "Facts"]
