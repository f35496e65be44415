"""How much a run varies by itself, and what two runs differ in beyond that."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

# Few and long, so that what lasts for some seconds falls into one batch and not into several that look alike.
BATCHES = 5

# The 99.5th percentile of Student's t by degrees of freedom: 99 % lie between it and its negative.
STUDENT = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355)


def batch_means(values: Sequence[float]) -> list[float]:
    """Return the means of equally long batches, or nothing where there are fewer values than batches.

    Neighbours in time resemble each other, so the values of a run are no independent sample; the means of long batches
    nearly are (R. Jain, The Art of Computer Systems Performance Analysis, 1991, section 25.5.2). The values at the
    begin that fill no batch are left out: there the service warms up.
    """
    length = len(values) // BATCHES
    begin = len(values) - length * BATCHES
    return [fmean(values[place : place + length]) for place in range(begin, len(values), length)] if length else []


def noise(values: Sequence[float]) -> float | None:
    """Return the half of the interval that holds the true mean with 99 % confidence, or None for too few values."""
    means = batch_means(values)
    return STUDENT[BATCHES - 2] * math.sqrt(variance(means) / BATCHES) if means else None


def change(before: Sequence[float], now: Sequence[float]) -> int | None:
    """Return 1 when the mean rose, -1 when it fell, 0 when both are alike within their noise, None for too few values.

    That is Welch's test at the level of 1 %: the difference of the means against the variances of both, with the
    degrees of freedom rounded down (B. L. Welch, Biometrika 34, 1947; Jain, section 13.4.2).
    """
    old, new = batch_means(before), batch_means(now)
    if not old or not new:
        return None
    difference = fmean(new) - fmean(old)
    parts = [variance(means) / BATCHES for means in (old, new)]
    if not any(parts):
        return (difference > 0) - (difference < 0)
    freedom = sum(parts) ** 2 / sum(part**2 / (BATCHES - 1) for part in parts)
    limit = STUDENT[int(freedom) - 1] * math.sqrt(sum(parts))
    return (difference > limit) - (difference < -limit)
