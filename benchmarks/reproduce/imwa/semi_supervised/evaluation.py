"""What is seen of a run: replicas beside their average, the ensemble of the last replicas, and the final models.

    gain of an average = its accuracy - mean accuracy of its replicas            ensemble = argmax of the mean softmax

Accuracy is that of the head that predicts (ABC's where there is one), in percent; the tail is the third of the classes with
the fewest labelled images, mean over its classes.
Letters   N test images, K classes, M replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from imwa.training.evaluation import group_accuracies
from reproduce.imwa.semi_supervised.balanced import TwoHeads
from reproduce.imwa.semi_supervised.training import Pool

IMAGES_AT_ONCE = 250


@torch.no_grad()
def probabilities(model: TwoHeads, head: nn.Linear, *, images: Tensor, pool: Pool) -> Tensor:
    """Float32[N K] on the CPU, in evaluation mode; the mode is put back."""
    mode = model.training
    model.eval()
    try:
        found = [head(model(pool.prepared(part))).softmax(dim=1).cpu() for part in images.split(IMAGES_AT_ONCE)]
    finally:
        model.train(mode)
    return torch.cat(found)


def accuracy(probable: Tensor, labels: Tensor) -> float:
    """In percent, of Float[N K] against Int64[N]."""
    return 100.0 * int((probable.argmax(dim=1) == labels).sum()) / len(labels)


def tail_accuracy(probable: Tensor, labels: Tensor, *, ranks: Sequence[int]) -> float | None:
    """Mean class accuracy of the last third of `ranks` (classes, most frequent first), in percent."""
    classes = probable.shape[1]
    right = torch.bincount(labels[probable.argmax(dim=1) == labels], minlength=classes).tolist()
    counts = torch.bincount(labels, minlength=classes).tolist()
    by_class = [100.0 * hits / count if count else None for hits, count in zip(right, counts, strict=True)]
    return group_accuracies(by_class, {"tail": ranks[-max(1, classes // 3) :]})["tail"]


@dataclass
class Judge:
    """Looks at replicas and averages; its state goes into the run's checkpoints.

    Attributes:
        images: UInt8[N C H W], on the run's device.
        labels: Int64[N], on the CPU.
        pool: for its normalisation.
        accuracies: of this episode's replicas that have ended.
        gains: of every average so far.
        replica_accuracy: mean over the replicas of the last average.
        summed: Float32[N K], softmax summed over the replicas of the last episode.
    """

    images: Tensor
    labels: Tensor
    pool: Pool
    accuracies: list[float] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    replica_accuracy: float | None = None
    summed: Tensor | None = None

    def seen(self, model: TwoHeads) -> Tensor:
        """Float32[N K] of the head that predicts."""
        return probabilities(model, model.predictor, images=self.images, pool=self.pool)

    def replica(self, model: TwoHeads, *, last: bool) -> None:
        """A replica has ended; `last`: its episode is the run's last."""
        found = self.seen(model)
        self.accuracies.append(accuracy(found, self.labels))
        if last:
            self.summed = found if self.summed is None else self.summed + found

    def average(self, model: TwoHeads) -> None:
        """The average of the replicas seen since the last one; of a single run there is nothing to say."""
        if self.accuracies:
            self.replica_accuracy = sum(self.accuracies) / len(self.accuracies)
            self.gains.append(accuracy(self.seen(model), self.labels) - self.replica_accuracy)
        self.accuracies = []

    def state_dict(self) -> dict[str, Any]:
        """In plain values."""
        names = ("accuracies", "gains", "replica_accuracy", "summed")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name, value in state.items():
            setattr(self, name, list(value) if isinstance(value, list) else value)
