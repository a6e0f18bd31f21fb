"""FlexMatch, one image at a time, float64, all N images counted anew at every step.

Source: FlexMatch, arXiv 2110.08263, equations 5 to 8 and 11; the mappings of its published code, by their names there.
"""

import math


def mapped(name: str, beta: float) -> float:
    if name == "convex":
        return beta / (2.0 - beta)
    if name == "linear":
        return (beta + 1.0) / 2.0
    if name == "low_limit":
        return 1.0 / (2.0 - beta)
    assert name == "concave"
    return (math.log(beta + 1.0) + 0.5) / (math.log(2.0) + 0.5)


class FlexMatch:
    def __init__(
        self, classes: int, images: int, threshold: float = 0.95, warm_up: bool = True, mapping: str = "convex"
    ):
        self.classes, self.threshold, self.warm_up, self.mapping = classes, threshold, warm_up, mapping
        self.labels = [-1] * images

    def counts(self) -> list[int]:
        """Unused first, then each class."""
        return [sum(label == c for label in self.labels) for c in range(-1, self.classes)]

    def beta(self) -> list[float]:
        unused, *held = self.counts()
        if max(held) == 0:
            return [0.0] * self.classes
        most = max(*held, unused) if self.warm_up else max(held)
        return [count / most for count in held]

    def thresholds(self) -> list[float]:
        return [self.threshold * mapped(self.mapping, beta) for beta in self.beta()]

    def __call__(self, probabilities: list[list[float]], indices: list[int]) -> list[float]:
        thresholds = self.thresholds()
        weights = [1.0 if max(row) >= thresholds[row.index(max(row))] else 0.0 for row in probabilities]
        for index, row in zip(indices, probabilities, strict=True):
            if max(row) >= self.threshold:
                self.labels[index] = row.index(max(row))
        return weights
