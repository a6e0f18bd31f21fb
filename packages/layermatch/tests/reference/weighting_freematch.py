"""FreeMatch, one sample and one class at a time, float64; the fairness term with its gradient worked out by hand.

Source: FreeMatch, arXiv 2205.07246, equations 5 to 11; order, sign, 1/0 = 0 and 1e-12 as in TorchSSL's and USB's code.
"""

import math
from typing import NamedTuple


class Step(NamedTuple):
    weights: list[float]
    fairness: float
    gradient: list[list[float]]


class FreeMatch:
    """`limits_on` is None, "global" (USB) or "class" (TorchSSL); `start` is 1/C where the state begins rounded."""

    def __init__(self, classes: int, momentum: float, *, quantile=None, limits=None, limits_on=None, start=None):
        self.classes, self.momentum, self.quantile = classes, momentum, quantile
        self.limits, self.limits_on = limits, limits_on
        start = 1.0 / classes if start is None else start
        self.threshold, self.probabilities, self.shares = start, [start] * classes, [start] * classes

    def moved(self, old: float, new: float) -> float:
        return self.momentum * old + (1.0 - self.momentum) * new

    def thresholds(self) -> list[float]:
        found = [self.threshold * (p / max(self.probabilities)) for p in self.probabilities]
        return [min(max(t, self.limits[0]), self.limits[1]) for t in found] if self.limits_on == "class" else found

    def learn(self, weak: list[list[float]]) -> None:
        maxima = sorted(max(row) for row in weak)
        level = sum(maxima) / len(maxima)
        if self.quantile is not None:
            place = self.quantile * (len(maxima) - 1)
            below = math.floor(place)
            above = min(below + 1, len(maxima) - 1)
            level = maxima[below] + (place - below) * (maxima[above] - maxima[below])
        self.threshold = self.moved(self.threshold, level)
        if self.limits_on == "global":
            self.threshold = min(max(self.threshold, self.limits[0]), self.limits[1])
        for c in range(self.classes):
            mean = sum(row[c] for row in weak) / len(weak)
            share = sum(row.index(max(row)) == c for row in weak) / len(weak)
            self.probabilities[c] = self.moved(self.probabilities[c], mean)
            self.shares[c] = self.moved(self.shares[c], share)

    def __call__(self, weak: list[list[float]], strong: list[list[float]]) -> Step:
        """`weak` and `strong` are probabilities; the gradient is with respect to the strong logits."""
        self.learn(weak)
        thresholds = self.thresholds()
        weights = [1.0 if max(row) >= thresholds[row.index(max(row))] else 0.0 for row in weak]
        return Step(weights, *fairness(strong, weights, self.probabilities, self.shares))


def inverse(value: float) -> float:
    return 0.0 if value == 0.0 else 1.0 / value


def fairness(strong, weights, probabilities, shares) -> tuple[float, list[list[float]]]:
    classes, count = len(probabilities), sum(weights)
    gradient = [[0.0] * classes for _ in strong]
    if count == 0:
        return 0.0, gradient
    mean = [sum(k * row[c] for k, row in zip(weights, strong, strict=True)) / count for c in range(classes)]
    hist = [
        sum(k for k, row in zip(weights, strong, strict=True) if row.index(max(row)) == c) / count
        for c in range(classes)
    ]
    a = [p * inverse(h) for p, h in zip(probabilities, shares, strict=True)]
    a = [value / sum(a) for value in a]
    u = [p * inverse(h) for p, h in zip(mean, hist, strict=True)]
    total = sum(u)
    b = [value / total for value in u]
    loss = sum(x * math.log(y + 1e-12) for x, y in zip(a, b, strict=True))
    # dL/du_c = a_c / (b_c + e) / S - sum_j a_j / (b_j + e) u_j / S^2;  dL/dpbar_c = dL/du_c / hbar_c
    common = sum(a[j] / (b[j] + 1e-12) * u[j] for j in range(classes)) / total**2
    by_mean = [(a[c] / (b[c] + 1e-12) / total - common) * inverse(hist[c]) for c in range(classes)]
    for i, (k, row) in enumerate(zip(weights, strong, strict=True)):
        g = [k / count * value for value in by_mean]
        inner = sum(p * value for p, value in zip(row, g, strict=True))
        gradient[i] = [p * (value - inner) for p, value in zip(row, g, strict=True)]
    return loss, gradient
