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


def temporal(
    averages: list[list[float]], visits: list[int], *, indices: list[int], probabilities: list[list[float]], m: float
) -> list[list[float]]:
    """Reading `temporal` (ours; Temporal Ensembling, arXiv 1610.02242), in place; what is used for each place.

    An image that is there twice is visited once, with the probabilities of its last place.
    """
    latest = dict(zip(indices, probabilities, strict=True))
    for image, row in latest.items():
        averages[image] = [m * old + (1.0 - m) * new for old, new in zip(averages[image], row, strict=True)]
        visits[image] += 1
    return [[value / (1.0 - m ** visits[image]) for value in averages[image]] for image in indices]


class PrototypesTwin:
    """Reading `prototypes` (ours): averaged labelled features of each class, and similarities to them."""

    def __init__(self, classes: int, width: int, m: float) -> None:
        self.m, self.steps = m, 0
        self.rows = [[0.0] * width for _ in range(classes)]
        self.seen = [False] * classes

    def step(self, features: Sequence[Sequence[float]], labels: Sequence[int]) -> None:
        """One optimizer step whose labelled features were these."""
        for c in range(len(self.rows)):
            members = [row for row, label in zip(features, labels, strict=True) if label == c]
            if not members:
                continue
            mean = [sum(column) / len(members) for column in zip(*members, strict=True)]
            if self.seen[c]:
                mean = [self.m * old + (1.0 - self.m) * new for old, new in zip(self.rows[c], mean, strict=True)]
            self.rows[c], self.seen[c] = mean, True
        self.steps += 1

    def logits(self, features: Sequence[Sequence[float]]) -> list[list[float]] | None:
        """10 cos(f - P', P_c - P'), or None as long as the prototypes are not used."""
        if self.steps < 50 or not all(self.seen):
            return None
        middle = [sum(column) / len(self.rows) for column in zip(*self.rows, strict=True)]

        def direction(row: Sequence[float]) -> list[float]:
            moved = [a - b for a, b in zip(row, middle, strict=True)]
            length = sum(value * value for value in moved) ** 0.5
            return [value / length for value in moved]

        centres = [direction(row) for row in self.rows]
        return [
            [10.0 * sum(a * b for a, b in zip(direction(row), centre, strict=True)) for centre in centres]
            for row in features
        ]
