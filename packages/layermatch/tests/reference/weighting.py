"""The rules without averages, one sample at a time, float64.

fixed_threshold: FixMatch, arXiv 2001.07685, equation 4; its code has >=. pseudolabel: Lee 2013, equation 16, and USB.
"""


def fixed_threshold(probabilities: list[list[float]], threshold: float) -> list[float]:
    return [1.0 if max(row) >= threshold else 0.0 for row in probabilities]


def usb_ramp(step: int, steps: int) -> float:
    """clip(t / (0.4 T), 0, 1)."""
    return min(max(step / (0.4 * steps), 0.0), 1.0)


def lee_ramp(step: int, first: int, last: int) -> float:
    """0 before T1, 3 (t - T1) / (T2 - T1) in between, then 3."""
    if step < first:
        return 0.0
    if step < last:
        return 3.0 * (step - first) / (last - first)
    return 3.0
