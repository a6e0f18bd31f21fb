"""Two regressions that every fine-tuned model has to beat: letters by position, and 4-mer counts.

    positional   one-hot of (position, base), sequences aligned at their first base, shorter ones filled with nothing
    4-mer        standardised counts of the 256 4-mers

Multinomial logistic regression (scikit-learn); the penalty is chosen on the dev set among 0.001, 0.01,
0.1 and 1 (inverse strengths, standardised columns).
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy
import torch

from randommask.alphabet import AMBIGUOUS, base_codes
from randommask.kmers import FIRST_KMER, kmer_ids
from randommask.training.classification import confusion_matrix, matthews

PENALTIES: Final = (0.001, 0.01, 0.1, 1.0)
COUNTED: Final = 4  # bases of the counted k-mers


class Rows(NamedTuple):
    """Sequences of one side and their classes Int64[N]."""

    sequences: Sequence[str]
    classes: torch.Tensor


def regression_floors(train: Rows, dev: Rows, test: Rows) -> dict[str, float]:
    """Test MCC of both regressions: keys `positional` and `kmer`."""
    longest = max(map(len, train.sequences))
    return {
        "positional": _fitted(train, dev, test, features=lambda sequences: _one_hot(sequences, longest)),
        "kmer": _fitted(train, dev, test, features=_counts),
    }


def _fitted(train: Rows, dev: Rows, test: Rows, *, features: Callable[[Sequence[str]], numpy.ndarray]) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features(train.sequences))
    sides = [scaler.transform(features(side.sequences)) for side in (train, dev, test)]
    classes = int(max(side.classes.max() for side in (train, dev, test))) + 1
    best = (-2.0, 0.0)
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, tol=1e-3, max_iter=1000).fit(sides[0], train.classes.numpy())
        scores = [
            matthews(confusion_matrix(torch.from_numpy(model.predict(side)), rows.classes, classes=classes))
            for side, rows in ((sides[1], dev), (sides[2], test))
        ]
        if scores[0] > best[0]:
            best = (scores[0], scores[1])
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
