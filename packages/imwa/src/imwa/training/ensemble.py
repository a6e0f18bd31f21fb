"""The prediction ensemble of an episode's replicas: the mean of their softmax, a reference that costs M times at inference.

Letters   M replicas, N images, K classes.
"""

import torch
from torch import Tensor


class Ensemble:
    """Sum of the replicas' probabilities on the test images."""

    def __init__(self) -> None:
        self.total: Tensor | None = None  # Float64[N K] on the CPU

    def add(self, logits: Tensor) -> None:
        """Take one replica's Float[N K]; one that diverged stays out."""
        probabilities = torch.softmax(logits.double().cpu(), 1)
        if torch.isfinite(probabilities).all():
            self.total = probabilities if self.total is None else self.total + probabilities

    def join(self, others: list[Tensor | None]) -> None:
        """The sum over processes, in their order."""
        totals = [total for total in others if total is not None]
        self.total = sum(totals[1:], totals[0]) if totals else None

    def accuracy(self, labels: Tensor) -> float | None:
        """In percent of Int64[N] labels; None where every replica diverged."""
        if self.total is None:
            return None
        return 100.0 * (self.total.argmax(1) == labels.cpu()).double().mean().item()
