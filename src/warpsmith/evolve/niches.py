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
    """Leave out every number of a JSON value, and what is empty then; names, choices and switches stay.

    A recipe may leave a size to its default, so a size that is not there must not make a difference either.
    """
    if isinstance(value, dict):
        kept = {key: _without_sizes(item) for key, item in value.items() if not _is_size(item)}
        return {key: item for key, item in kept.items() if item not in ({}, [])}
    if isinstance(value, list):
        return [_without_sizes(item) for item in value if not _is_size(item)]
    return value


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _structure(plan: Plan) -> str:
    """What the plan launches in which order, and between which buffers; not how large."""
    launches = [[launch.kernel, list(launch.args), len(launch.grid), launch.cooperative] for launch in plan.launches]
    calls = [[call.op, [view.tensor for view in call.args], call.out.tensor, call.after] for call in plan.calls]
    shape = [launches, [buffer.name for buffer in plan.buffers], sorted(name for name, _ in plan.tunables)]
    return json.dumps([*shape, calls] if calls else shape)
