"""The figures of benchmarks/judge_repeatability.py: how far processes lie apart, and a candidate against itself."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from warpsmith.judge.statistics import compare
from warpsmith.records import GpuState

UNITS = {"sm_clock": "mhz", "memory_clock": "mhz", "temperature": "c", "power": "w"}
Run = dict[str, Any]
"""One judgement as the file holds it: the number of its `process`, the `seconds` that it took, and a `problem` where it
failed; else `median` and `interval` in seconds, the number of `samples`, `clocks_of` of its timing, and the conditions
of the `gpu`."""


def spread(runs: Sequence[Run]) -> dict[str, Any]:
    """Say how far the medians of several processes lie apart."""
    timed = [run for run in runs if not run["problem"]]
    problems = sorted({run["problem"] for run in runs if run["problem"]})
    if len(timed) < 2:
        return {"runs": len(timed), "problems": problems}
    medians = [run["median"] for run in timed]
    middle = statistics.median(medians)
    clocks = {name: [run["clocks_of"][name] for run in timed] for name in timed[0]["clocks_of"]}
    return {
        "runs": len(timed),
        "problems": problems,
        "median": middle,
        "medians": medians,
        "range": max(medians) / min(medians) - 1.0,
        "deviation": statistics.stdev(medians) / statistics.fmean(medians),
        "covered": sum(run["interval"][0] <= middle <= run["interval"][1] for run in timed) / len(timed),
        "samples": statistics.median(run["samples"] for run in timed),
        "judgement_seconds": statistics.median(run["seconds"] for run in runs),
        "clocks_of": {name: statistics.median(values) for name, values in clocks.items()},
        "gpu": together([run["gpu"] for run in timed if run["gpu"]]),
    }


def conditions(states: Sequence[GpuState]) -> dict[str, Any]:
    """Sum up what the driver said during one run: least, median and largest of each figure, and reasons to throttle."""
    if not states:
        return {}
    summary: dict[str, Any] = {}
    for name, unit in UNITS.items():
        values = [getattr(state, name) for state in states]
        summary[f"{name}_{unit}"] = [min(values), statistics.median(values), max(values)]
    throttled = [state for state in states if state.throttle]
    summary["throttle"] = sorted({reason for state in throttled for reason in state.throttle})
    summary["throttled_share"] = len(throttled) / len(states)
    return summary


def together(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the conditions of several runs; the middle figure is the median of their medians."""
    if not runs:
        return {}
    summary: dict[str, Any] = {}
    for name in (f"{name}_{unit}" for name, unit in UNITS.items()):
        least, middle, most = zip(*(run[name] for run in runs))
        summary[name] = [min(least), statistics.median(middle), max(most)]
    summary["throttle"] = sorted({reason for run in runs for reason in run["throttle"]})
    summary["throttled_share"] = statistics.fmean(run["throttled_share"] for run in runs)
    return summary


def itself(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare a candidate with itself: runs 0, 3, 4, 7, 8 ... are A, the others B."""
    found = {"of_each": len(runs) // 2, "problems": sorted({run["problem"] for run in runs if run["problem"]})}
    if found["problems"]:
        return found
    ours = [run["median"] for number, run in enumerate(runs) if number % 4 in (0, 3)]
    theirs = [run["median"] for number, run in enumerate(runs) if number % 4 in (1, 2)]
    comparison = compare("itself", ours, theirs)
    return found | asdict(comparison) | {"gain": comparison.gain}


def show(name: str, row: dict[str, Any]) -> None:
    """Print one kernel's results in a few lines."""
    apart, same = row["processes"], row.get("itself", {"problems": []})
    if "median" in apart:
        print(
            f"{name:14} {apart['median'] * 1e6:9.2f} µs in {apart['runs']} processes: range {apart['range']:.2%}, "
            f"deviation {apart['deviation']:.2%}, own interval covers the median in {apart['covered']:.0%}; "
            f"{apart['judgement_seconds']:.2f} s a judgement"
        )
    if "ratio" in same:
        low, high = same["interval"]
        print(
            f"{'':14} against itself {same['ratio']:.4f} ({low:.4f} to {high:.4f}), "
            f"spread {same['spread']:.4f}, {'A GAIN, WHICH IS WRONG' if same['gain'] else 'no gain'}"
        )
    for problem in sorted({*apart["problems"], *same["problems"]}):
        print(f"{name:14} {problem}")
