"""Questions that inputs of one family cannot ask.

* *Exactness*: sums of odd 12-bit integers against zeros and ones are exact in float32 and in nothing narrower.
* *Mixtures*: a shortcut that some rows justify must not be taken for the others; a sign must not be taken for granted.
* *Memory*: the same call with another fill of outputs and scratch must give the same bits; where atomics add up
  floating values in no fixed order, values within the limit.

What outlives a call, a module's variables, needs no question: a call that leaves them changed fails at once.

Not covered: a program that treats differently what no family and no mixture draws.
"""

from __future__ import annotations

import re
from dataclasses import replace

from warpsmith.judge.mixtures import MIRRORED
from warpsmith.judge.references import Reference
from warpsmith.judge.trial import Trial, same_bits
from warpsmith.records import Failure, Stage

EXACT = "exact"
MIXTURES = ("equal+normal", "normal+equal", "nominal+normal", f"offset+{MIRRORED}")


def exactness(trial: Trial, families: tuple[str, ...], fill: int) -> Failure | None:
    """Draw integers whose sums are exact in the task's precision; a deviation is less precision than was asked for."""
    if EXACT not in families:
        return None
    seed = trial.references.seed_for(EXACT, trial.candidate.key)
    for either in (seed, seed ^ 1):  # The parity of the seed says which operand holds the integers.
        failure = trial.verify(Stage.PROBES, trial.references.get(EXACT, either), fill=fill)
        if failure is not None and failure.reason == "wrong_value":
            hint = " These inputs have exact answers: the program computes in less precision than the task declares."
            return replace(failure, reason="inexact", message=failure.message + hint)
        if failure is not None:
            return failure
    return None


def mixtures(trial: Trial, families: tuple[str, ...], fill: int, most: int = len(MIXTURES)) -> Failure | None:
    """Draw tensors of which one part belongs to one family and the rest to another, and a mirror image."""
    for family in MIXTURES[:most]:
        if set(family.split("+")) <= {*families, MIRRORED}:
            failure = trial.verify(Stage.PROBES, _reference(trial, family), fill=fill)
            if failure is not None:
                return failure
    return None


def memory(trial: Trial, reference: Reference, fill: int) -> Failure | None:
    """Repeat the first call with another fill and compare the bits of the outputs."""
    if trial.first is None:
        raise RuntimeError("the run stage has not passed")
    again = trial.call(reference, fill=fill)
    failure = trial.examine(Stage.PROBES, reference, again, fill=fill)
    if failure is not None or _has_atomics(trial):
        return failure
    for name, output in trial.first.outputs.items():
        if not same_bits(output, again.outputs[name]):
            message = (
                f"Output {name} changes when only the previous contents of outputs and scratch change, "
                "so the program reads memory that it has not written."
            )
            return Failure(Stage.PROBES, "fill_dependent", message, reference.family, reference.seed)
    return None


def _reference(trial: Trial, family: str) -> Reference:
    base = family.split("+")[0]
    return trial.references.get(family, trial.references.seed_for(base, trial.candidate.key))


_ATOMIC = re.compile(r"^\s*(?:@!?%\w+\s+)?(?:atom|red|multimem\.red|cp\.reduce)\.", re.MULTILINE)


def _has_atomics(trial: Trial) -> bool:
    return _ATOMIC.search(trial.built.ptx) is not None
