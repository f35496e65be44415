"""What changed beyond the noise of two runs."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.noise import FEWEST_BATCHES, batch_means, change, noise
from loadtest.results import Answer, Series, enough, series_of

RUNS = 500
values = st.lists(st.floats(1, 1e6), min_size=FEWEST_BATCHES, max_size=40)


def run(dice: random.Random, *, mean: float = 1.0, memory: float = 0.0, seconds: int = 10) -> list[float]:
    """Return values of half seconds with a deviation of 3 %, each of which resembles the one before."""
    found, deviation = [], dice.gauss(0, 1)
    for _ in range(2 * seconds):
        found.append(mean * (1 + 0.03 * deviation))
        deviation = memory * deviation + math.sqrt(1 - memory**2) * dice.gauss(0, 1)
    return found


@pytest.mark.parametrize(("memory", "seconds", "at_most"), [(0, 10, 0.01), (0.5, 10, 0.03), (0.7, 30, 0.03)])
def test_runs_that_are_alike_hardly_ever_get_an_arrow(memory: float, seconds: int, at_most: float) -> None:
    dice = random.Random(1)
    arrows = sum(
        change(run(dice, memory=memory, seconds=seconds), run(dice, memory=memory, seconds=seconds)) != 0
        for _ in range(RUNS)
    )
    assert arrows <= at_most * RUNS


@pytest.mark.parametrize(("mean", "direction"), [(1.1, 1), (0.9, -1)])
def test_a_change_of_a_tenth_gets_an_arrow(mean: float, direction: int) -> None:
    dice = random.Random(1)
    found = [change(run(dice), run(dice, mean=mean)) for _ in range(RUNS)]
    assert found.count(direction) >= 0.99 * RUNS
    assert -direction not in found


def test_the_noise_holds_the_true_mean() -> None:
    dice = random.Random(1)
    runs = [run(dice) for _ in range(RUNS)]
    hits = sum(abs(sum(one) / len(one) - 1) <= (noise(one) or 0) for one in runs)
    assert 0.98 * RUNS <= hits < RUNS


@given(values, values)
def test_the_direction_turns_with_the_order(before: list[float], now: list[float]) -> None:
    there, back = change(before, now), change(now, before)
    assert there is not None
    assert back == -there
    assert change(now, now) == 0


@given(values)
def test_a_unit_changes_nothing(now: list[float]) -> None:
    shifted = [value * 1.25 for value in now]
    assert change(now, shifted) == change([value / 1024 for value in now], [value / 1024 for value in shifted])


@given(values)
def test_the_warm_up_is_left_out_before_all_else(now: list[float]) -> None:
    means = batch_means(now)
    assert FEWEST_BATCHES <= len(means) < 2 * FEWEST_BATCHES
    kept = len(means) * (len(now) // FEWEST_BATCHES)
    assert len(now) - kept < len(now) / FEWEST_BATCHES
    assert batch_means(now[-kept:]) == means


@pytest.mark.parametrize("count", range(FEWEST_BATCHES))
def test_of_a_short_run_nothing_is_said(count: int) -> None:
    assert noise([1.0] * count) is None
    assert change([1.0] * count, [1.0] * 20) is None
    assert change([1.0] * 20, [1.0] * count) is None


def test_values_that_never_vary_differ_by_their_mean() -> None:
    assert [change([2.0] * 20, [mean] * 20) for mean in (1.0, 2.0, 3.0)] == [-1, 0, 1]


@pytest.mark.parametrize(
    ("count", "share", "told"),
    [
        (9_999, 0.999, False),
        (10_000, 0.999, True),
        (999, 0.99, False),
        (1_000, 0.99, True),
        (0, 1, False),
        (1, 1, True),
    ],
)
def test_a_percentile_needs_answers_beyond_it(count: int, share: float, told: bool) -> None:
    assert enough(count, share) is told


def test_percentiles_over_time_have_parts_with_enough_answers() -> None:
    answers = [Answer(number / 500, 0.001 * (1 + number % 50), 200) for number in range(5_000)]
    found = series_of(answers, 10.003)
    assert found["100"] == Series(0.5, [0.05] * 20)
    assert found["90"] == Series(0.5, [0.045] * 20)
    assert (found["99"].step, len(found["99"].values)) == (2.0, 5)
    assert "99.9" not in found


def test_an_answer_that_comes_late_belongs_to_the_time_at_which_it_was_due() -> None:
    answers = [Answer(number / 100, 5.0 if number == 150 else 0.01, 200) for number in range(200)]
    assert series_of(answers, 6.5)["100"].values == [0.01, 0.01, 0.01, 5.0]


@given(st.lists(st.builds(Answer, st.floats(0, 20), st.floats(1e-6, 10), st.just(200))), st.floats(0, 30))
def test_a_series_lies_within_the_run(answers: list[Answer], seconds: float) -> None:
    for series in series_of(answers, seconds).values():
        assert series.step * len(series.values) <= seconds
        assert set(series.values) <= {answer.latency for answer in answers}
