"""Which programs are variations of one idea.

Two programs share a niche when they do the same steps in the same way and differ only in sizes. Without niches the
variations of the first good idea fill the population, and every other idea dies before it has been tuned.
"""

from __future__ import annotations

import json
from typing import Any

from warpsmith.records import Candidate, Plan, digest


def niche(candidate: Candidate) -> str:
    """Return the name of the candidate's niche: the structure of its recipe, or of its plan where it has none."""
    recipe = candidate.lineage.recipe
    if recipe is not None:
        return digest("recipe", json.dumps(_without_sizes(json.loads(recipe)), sort_keys=True))
    return digest("plan", _structure(candidate.program.plan))


def _without_sizes(value: Any) -> Any:
    """Blank every number of a JSON value; names, choices and switches stay."""
    if isinstance(value, dict):
        return {key: _without_sizes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_sizes(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return 0


def _structure(plan: Plan) -> str:
    """What the plan launches in which order, and between which buffers; not how large."""
    launches = [[launch.kernel, list(launch.args), len(launch.grid), launch.cooperative] for launch in plan.launches]
    return json.dumps([launches, [buffer.name for buffer in plan.buffers], sorted(name for name, _ in plan.tunables)])
