"""Two regressions that every fine-tuned model has to beat: letters by position, and 4-mer counts.

    positional   one-hot of (position, base), sequences aligned at their first base, shorter ones filled with nothing
    4-mer        standardised counts of the 256 4-mers

Multinomial logistic regression, or ridge regression where the targets are numbers (scikit-learn); the penalty is chosen on the dev set
among 0.001, 0.01, 0.1 and 1 (inverse strengths, standardised columns).
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy
import torch

from randommask.alphabet import AMBIGUOUS, base_codes
from randommask.kmers import FIRST_KMER, kmer_ids
from randommask.training.classification import confusion_matrix, matthews
from randommask.training.regression import pearson

PENALTIES: Final = (0.001, 0.01, 0.1, 1.0)
COUNTED: Final = 4  # bases of the counted k-mers


class Rows(NamedTuple):
    """Sequences of one side and their targets: classes Int64[N] or numbers Float32[N]."""

    sequences: Sequence[str]
    targets: torch.Tensor


def regression_floors(train: Rows, dev: Rows, test: Rows) -> dict[str, float]:
    """Test MCC (Pearson's correlation for numbers) of both regressions: keys `positional` and `kmer`."""
    return {name: headline(found, test.targets) for name, found in floor_predictions(train, dev, test).items()}


def floor_predictions(train: Rows, dev: Rows, test: Rows, *, positional: bool = True) -> dict[str, torch.Tensor]:
    """Predictions of the regressions on the test rows, classes Int64[N] or numbers Float64[N]; the 4-mer one alone unless `positional`."""
    longest = max(map(len, train.sequences))
    found = {"kmer": _fitted(train, dev, test, features=_counts)}
    if positional:
        found = {"positional": _fitted(train, dev, test, features=lambda rows: _one_hot(rows, longest))} | found
    return found


def headline(predicted: torch.Tensor, targets: torch.Tensor) -> float:
    """MCC of classes, Pearson's correlation of numbers."""
    if targets.is_floating_point():
        return pearson(predicted.double(), targets.double())
    classes = int(max(predicted.max(), targets.max())) + 1
    return matthews(confusion_matrix(predicted, targets, classes=classes))


def _fitted(train: Rows, dev: Rows, test: Rows, *, features: Callable[[Sequence[str]], numpy.ndarray]) -> torch.Tensor:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features(train.sequences))
    sides = [scaler.transform(features(side.sequences)) for side in (train, dev, test)]
    best: tuple[float, torch.Tensor] | None = None
    for penalty in PENALTIES:
        if train.targets.is_floating_point():
            model = Ridge(alpha=len(train.targets) * 1e-3 / penalty)
        else:
            model = LogisticRegression(C=penalty, tol=1e-3, max_iter=1000)
        model.fit(sides[0], train.targets.numpy())
        on_dev, on_test = (torch.from_numpy(model.predict(side)) for side in sides[1:])
        found = headline(on_dev, dev.targets)
        if best is None or found > best[0]:
            best = (found, on_test)
    assert best is not None
    return best[1]


def _one_hot(sequences: Sequence[str], longest: int) -> numpy.ndarray:
    table = numpy.zeros((len(sequences), longest, 4), dtype=numpy.float32)
    for row, sequence in enumerate(sequences):
        codes = base_codes(sequence[:longest])
        places = numpy.flatnonzero(codes < AMBIGUOUS)
        table[row, places, codes[places]] = 1
    return table.reshape(len(sequences), -1)


def _counts(sequences: Sequence[str]) -> numpy.ndarray:
    size = FIRST_KMER + 4**COUNTED
    rows = [
        numpy.bincount(kmer_ids(base_codes(sequence), COUNTED), minlength=size)[FIRST_KMER:] for sequence in sequences
    ]
    return numpy.stack(rows).astype(numpy.float32)
