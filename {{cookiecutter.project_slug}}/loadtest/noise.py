"""How much a run varies by itself, and what two runs differ in beyond that."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

# Few and long, so that what lasts for some seconds falls into one batch and not into several that look alike.
FEWEST_BATCHES = 5

# The 99.5th percentile of Student's t by degrees of freedom, from 1 on: 99 % lie between it and its negative.
STUDENT = (
    *(63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355),
    *(3.250, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947, 2.921),
)


def batch_means(values: Sequence[float]) -> list[float]:
    """Return the means of five to nine equally long batches, or nothing where there are fewer values.

    Neighbours in time resemble each other, so the values of a run are no independent sample; the means of long batches
    nearly are (R. Jain, The Art of Computer Systems Performance Analysis, 1991, section 25.5.2). The values at the
    begin that fill no batch are left out: there the service warms up.
    """
    length = len(values) // FEWEST_BATCHES
    if length == 0:
        return []
    return [fmean(values[place : place + length]) for place in range(len(values) % length, len(values), length)]


def noise(values: Sequence[float]) -> float | None:
    """Return the half of the interval that holds the true mean with 99 % confidence, or None for too few values."""
    means = batch_means(values)
    return STUDENT[len(means) - 2] * math.sqrt(variance(means) / len(means)) if means else None


def change(before: Sequence[float], now: Sequence[float]) -> int | None:
    """Return 1 when the mean rose, -1 when it fell, 0 when both are alike within their noise, None for too few values.

    That is Welch's test at the level of 1 %: the difference of the means against the variances of both, with the
    degrees of freedom rounded down (B. L. Welch, Biometrika 34, 1947; Jain, section 13.4.2).
    """
    old, new = batch_means(before), batch_means(now)
    if not old or not new:
        return None
    difference = fmean(new) - fmean(old)
    parts = [variance(means) / len(means) for means in (old, new)]
    if not any(parts):
        return (difference > 0) - (difference < 0)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(old) - 1) + parts[1] ** 2 / (len(new) - 1))
    limit = STUDENT[int(freedom) - 1] * math.sqrt(sum(parts))
    return (difference > limit) - (difference < -limit)
