"""The averaged centres after n updates, as the closed sum, float64. The equation is the reading `classifier`, ours."""

from collections.abc import Sequence


def averaged(start: Sequence[float], seen: Sequence[Sequence[float]], momentum: float) -> list[float]:
    """E_n = m^n E_0 + sum_j (1 - m) m^(n - j) W_j, one number at a time."""
    n = len(seen)
    return [
        momentum**n * first
        + sum((1.0 - momentum) * momentum ** (n - j) * values[i] for j, values in enumerate(seen, 1))
        for i, first in enumerate(start)
    ]


def stepped(average: float, live: float, momentum: float) -> float:
    """One update in the form that is implemented, E + (1 - m)(W - E)."""
    return average + (1.0 - momentum) * (live - average)
