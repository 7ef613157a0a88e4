"""Numbers that are published must not say more than was measured, and a clock that was deceived must be noticed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from warpsmith.judge.statistics import (
    LEAST_BLOCKS,
    clustered_interval,
    compare,
    disagreement,
    fast_p,
    geometric_mean,
    median_interval,
    timing_of,
)
from warpsmith.records import GpuState

NAN, INF = math.nan, math.inf


def abba(
    candidate: float, baseline: float, blocks: int, drift: float = 0.0, noise: float = 0.0
) -> tuple[list[float], list[float]]:
    """Blocks as they run, A B B A A B B A ..., on a GPU that becomes slower by `drift` with every block."""
    random = np.random.default_rng(7)
    ours: list[float] = []
    theirs: list[float] = []
    for position in range(2 * blocks):
        factor = (1.0 + drift) ** position * math.exp(noise * random.standard_normal())
        if position % 4 in (0, 3):
            ours.append(candidate * factor)
        else:
            theirs.append(baseline * factor)
    return ours, theirs


class TestInterval:
    def test_it_holds_the_true_median_as_often_as_it_says(self) -> None:
        random = np.random.default_rng(3)
        hits = 0
        for trial in range(200):
            low, high = median_interval(random.exponential(1.0, 25).tolist(), seed=trial)
            hits += low <= math.log(2.0) <= high
        assert 180 <= hits < 200

    def test_it_holds_the_median_of_the_samples_and_is_the_same_every_time(self) -> None:
        samples = [1.0, 1.0, 1.0, 9.0, 2.0, 3.0]
        low, high = median_interval(samples, seed=5)
        assert low <= 1.5 <= high
        assert median_interval(samples, seed=5) == (low, high)
        assert median_interval([2.5]) == (2.5, 2.5)

    def test_more_samples_make_it_narrower(self) -> None:
        random = np.random.default_rng(1)
        few, many = random.normal(10.0, 1.0, 8).tolist(), random.normal(10.0, 1.0, 200).tolist()
        width = [high - low for low, high in (median_interval(few), median_interval(many))]
        assert width[1] < width[0] / 2

    @pytest.mark.parametrize("samples", [[], [1.0, NAN], [1.0, INF]])
    def test_what_is_no_sample_gives_no_interval(self, samples: list[float]) -> None:
        with pytest.raises(ValueError, match="finite samples"):
            median_interval(samples)


class TestTiming:
    def test_a_timing_says_what_it_was_made_of(self) -> None:
        state = GpuState(1700, 2600, 60, 400.0)
        timing = timing_of([3e-6, 1e-6, 2e-6], "H200", "measured", [state], [("events", 2e-6)])
        assert timing.median == 2e-6
        assert timing.samples == (3e-6, 1e-6, 2e-6)
        assert timing.interval == pytest.approx((1e-6, 3e-6), rel=0.01)
        assert (timing.source, timing.states, timing.clocks_of) == ("measured", (state,), (("events", 2e-6),))

    def test_samples_that_agree_too_well_do_not_speak_for_other_processes(self) -> None:
        low, high = timing_of([1e-4] * 10, "H200", "measured").interval
        assert 0.98e-4 < low <= 0.99e-4 and 1.01e-4 <= high < 1.02e-4

    def test_an_estimate_repeats_exactly(self) -> None:
        assert timing_of([1e-4], "H200", "estimated").interval == (1e-4, 1e-4)

    @pytest.mark.parametrize("samples", [[1e-6, 0.0, 1e-6], [1e-6, -1e-9, 1e-6], [NAN]])
    def test_a_sample_that_no_call_takes_is_refused(self, samples: list[float]) -> None:
        with pytest.raises(ValueError):
            timing_of(samples, "H200", "measured")


class TestCompare:
    def test_a_program_that_is_twice_as_fast_gains(self) -> None:
        found = compare("eager", *abba(1e-6, 2e-6, 10, noise=0.01))
        assert found.ratio == pytest.approx(2.0, rel=0.02)
        assert found.interval[0] <= 2.0 <= found.interval[1]
        assert (found.gain, found.blocks, found.baseline) == (True, 10, "eager")

    def test_a_slower_program_does_not_gain(self) -> None:
        assert not compare("eager", *abba(2e-6, 1e-6, 10, noise=0.01)).gain

    @pytest.mark.parametrize("drift", [0.03, -0.03])
    def test_a_gpu_that_warms_up_makes_nobody_faster(self, drift: float) -> None:
        found = compare("eager", *abba(1e-6, 1e-6, 10, drift=drift))
        assert found.ratio == pytest.approx(1.0, abs=0.002)
        assert not found.gain

    def test_a_gain_smaller_than_what_the_baseline_strays_is_none(self) -> None:
        ours = [1.0e-6] * 8
        theirs = [1.02e-6, 1.10e-6, 1.02e-6, 1.10e-6, 1.02e-6, 1.10e-6, 1.02e-6, 1.10e-6]
        found = compare("eager", ours, theirs)
        assert found.interval[0] > 1.0
        assert found.spread >= 1.07
        assert not found.gain

    def test_a_baseline_that_stands_still_has_no_spread(self) -> None:
        assert compare("eager", [1e-6] * 6, [2e-6] * 6).spread == 1.0

    def test_blocks_without_a_partner_too_few_blocks_and_broken_clocks_are_refused(self) -> None:
        with pytest.raises(ValueError, match="as many of each"):
            compare("eager", [1e-6] * 8, [1e-6] * 7)
        with pytest.raises(ValueError, match="at least"):
            compare("eager", [1e-6] * (LEAST_BLOCKS - 1), [1e-6] * (LEAST_BLOCKS - 1))
        for broken in (NAN, 0.0, INF, -1e-6):
            with pytest.raises(ValueError, match="positive time"):
                compare("eager", [1e-6] * 7 + [broken], [2e-6] * 8)
            with pytest.raises(ValueError, match="positive time"):
                compare("eager", [1e-6] * 8, [2e-6] * 7 + [broken])


US = 1e-6
HONEST = [
    {"events": 50 * US, "activity": 47 * US, "wall": 51 * US},
    {"events": 2.1 * US, "activity": 2.4 * US, "wall": 2.0 * US},
    {"events": 5000 * US, "activity": 5020 * US, "wall": 5100 * US},
    {"events": 50 * US, "wall": 49 * US},
    {"events": 50 * US, "activity": 49 * US},
    {"events": 50 * US},
]
DECEIVED = [
    ({"events": 50 * US, "activity": 400 * US, "wall": 400 * US}, "`activity` says 400 µs, so `events`"),
    ({"events": 400 * US, "activity": 400 * US, "wall": 50 * US}, "`activity` says 400 µs, so `wall`"),
    ({"events": 400 * US, "wall": 50 * US}, "`events` says 400 µs, so `wall`"),
    ({"events": 900 * US, "activity": 20 * US, "wall": 900 * US}, "`events` says 900 µs, so `activity`"),
    ({"events": 100 * US, "activity": 100 * US, "wall": 2000 * US}, "`wall` says 2000 µs, so `events`"),
]


class TestClocks:
    @pytest.mark.parametrize("clocks", HONEST)
    def test_honest_clocks_agree(self, clocks: dict[str, float]) -> None:
        assert disagreement(clocks, 1) is None

    @pytest.mark.parametrize(("clocks", "words"), DECEIVED)
    def test_a_deceived_clock_is_named_with_the_one_that_betrays_it(self, clocks: dict[str, float], words: str) -> None:
        said = disagreement(clocks, 1)
        assert said is not None and words in said

    def test_a_call_of_many_kernels_may_have_as_many_gaps(self) -> None:
        clocks = {"events": 300 * US, "activity": 100 * US, "wall": 300 * US}
        assert disagreement(clocks, 1) is not None
        assert disagreement(clocks, 50) is None

    @pytest.mark.parametrize("broken", [NAN, INF, 0.0, -1e-6])
    @pytest.mark.parametrize("name", ["events", "activity", "wall"])
    def test_what_is_no_time_never_passes(self, name: str, broken: float) -> None:
        assert disagreement({"events": US, "activity": US, "wall": US, name: broken}, 1) is not None

    def test_the_caller_is_told_of_a_clock_that_nobody_looks_at(self) -> None:
        with pytest.raises(ValueError):
            disagreement({"events": US, "sundial": US}, 1)
        with pytest.raises(ValueError):
            disagreement({"events": US}, 0)


class TestScores:
    def test_fast_p_counts_wrong_programs_among_all(self) -> None:
        speedups = [None, 0.5, 1.0, 3.0]
        assert [fast_p(speedups, p) for p in (0.0, 1.0, 2.0, 3.0)] == [0.75, 0.25, 0.25, 0.0]
        assert fast_p([NAN, 2.0], 1.0) == 0.5
        with pytest.raises(ValueError):
            fast_p([], 1.0)

    def test_the_geometric_mean_of_a_gain_and_its_inverse_is_one(self) -> None:
        assert geometric_mean([4.0, 0.25]) == pytest.approx(1.0)
        assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)

    @pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, INF], [1.0, NAN], [-1.0, -1.0]])
    def test_one_impossible_value_cannot_carry_the_mean_away(self, values: list[float]) -> None:
        with pytest.raises(ValueError):
            geometric_mean(values)


class TestClusteredInterval:
    def test_groups_weigh_the_same_however_many_values_they_have(self) -> None:
        low, high = clustered_interval([[2.0] * 50, [8.0]])
        assert (low, high) == (pytest.approx(2.0), pytest.approx(8.0))

    def test_values_of_one_group_vary_too(self) -> None:
        low, high = clustered_interval([[1.0, 2.0, 4.0, 8.0]])
        assert 1.0 <= low < 2.0 and 4.0 < high <= 8.0
        assert clustered_interval([[3.0]]) == (pytest.approx(3.0), pytest.approx(3.0))

    def test_repeats_are_not_taken_for_tasks(self) -> None:
        """Thirty repeats of two tasks say as little of other tasks as two do."""
        clustered = clustered_interval([[1.0] * 30, [4.0] * 30])
        separate = clustered_interval([[value] for value in [1.0] * 30 + [4.0] * 30])
        assert math.log(clustered[1] / clustered[0]) > 3 * math.log(separate[1] / separate[0])

    def test_it_covers_the_mean_that_is_there(self) -> None:
        chance = np.random.default_rng(3)
        covered = 0
        for _ in range(40):
            centres = 0.2 + 0.3 * chance.standard_normal(20)
            groups = [np.exp(centre + 0.1 * chance.standard_normal(3)).tolist() for centre in centres]
            low, high = clustered_interval(groups)
            covered += low < math.exp(0.2) < high
        assert covered >= 34

    @pytest.mark.parametrize("groups", [[], [[]], [[1.0], []], [[0.0]], [[NAN]], [[1.0, INF]]])
    def test_nothing_is_made_of_nothing(self, groups: list[list[float]]) -> None:
        with pytest.raises(ValueError, match="geometric mean"):
            clustered_interval(groups)
