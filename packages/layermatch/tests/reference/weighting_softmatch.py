"""SoftMatch, one sample at a time, float64.

Source: SoftMatch, arXiv 2301.10921, equations 5 to 9; USB's code (1e-6, aligned maxima, start with the first batch) and
TorchSSL's (unaligned maxima, start at 1/C).
"""

import math


class SoftMatch:
    """`start` is 1/C where the state begins rounded."""

    def __init__(self, classes: int, momentum: float, *, n_sigma=2.0, alignment=True, variant="usb", start=None):
        self.classes, self.momentum, self.n_sigma = classes, momentum, n_sigma
        self.alignment, self.variant = alignment, variant
        start = 1.0 / classes if start is None else start
        self.mean, self.variance = start, 1.0
        self.probabilities = None if variant == "usb" else [start] * classes

    def moved(self, old: float, new: float) -> float:
        return self.momentum * old + (1.0 - self.momentum) * new

    def aligned(self, row: list[float]) -> list[float]:
        scaled = [
            q * (1.0 / self.classes + 1e-6) / (p + 1e-6) for q, p in zip(row, self.probabilities or [], strict=True)
        ]
        return [value / sum(scaled) for value in scaled]

    def __call__(self, probabilities: list[list[float]]) -> list[float]:
        samples = len(probabilities)
        used = probabilities
        if self.alignment:
            batch = [sum(row[c] for row in probabilities) / samples for c in range(self.classes)]
            old = self.probabilities
            self.probabilities = batch if old is None else [self.moved(o, n) for o, n in zip(old, batch, strict=True)]
            used = [self.aligned(row) for row in probabilities]
        maxima = [max(row) for row in used]
        learnt = [max(row) for row in probabilities] if self.variant == "torchssl" else maxima
        mean = sum(learnt) / samples
        self.mean = self.moved(self.mean, mean)
        if samples > 1:
            self.variance = self.moved(self.variance, sum((v - mean) ** 2 for v in learnt) / (samples - 1))
        return [math.exp(-(min(v - self.mean, 0.0) ** 2) / (2.0 * self.variance / self.n_sigma**2)) for v in maxima]
