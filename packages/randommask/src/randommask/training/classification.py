"""Scores of a classifier over a whole set: cross-entropy, confusion matrix, Matthews correlation.

    MCC = (c s - sum_k p_k t_k) / sqrt((s^2 - sum p_k^2) (s^2 - sum t_k^2))
    s rows, c right ones, t_k rows of class k, p_k predictions of class k; 0 where a root is 0 (a constant prediction)

MCC is computed once from the whole set's confusion matrix: a mean over batches is another number.

Source    Gorodkin 2004 (R_K), as in scikit-learn.      Letters   N rows, K classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Score(NamedTuple):
    """`loss` in nats a row, `mcc` in -1 to 1, `confusion` Int64[K K] (true class by row)."""

    loss: float
    mcc: float
    confusion: Tensor


def score(logits: Tensor, labels: Tensor) -> Score:
    """Score logits Float[N K] against labels Int64[N]."""
    loss = torch.nn.functional.cross_entropy(logits.double(), labels)
    confusion = confusion_matrix(logits.argmax(1), labels, classes=logits.shape[1])
    return Score(float(loss), matthews(confusion), confusion)


def confusion_matrix(predicted: Tensor, labels: Tensor, *, classes: int) -> Tensor:
    """Int64[K K]: rows of true class i that were predicted as j."""
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)


def macro_f1(confusion: Tensor) -> float:
    """Mean over the classes of 2 right / (rows of the class + predictions of it), 0 where both are none.

    Example:
        >>> macro_f1(torch.tensor([[5, 0], [5, 0]]))
        0.3333333333333333
    """
    right, both = confusion.diagonal().tolist(), (confusion.sum(0) + confusion.sum(1)).tolist()
    return sum(2 * r / b if b else 0.0 for r, b in zip(right, both, strict=True)) / len(right)


def matthews(confusion: Tensor) -> float:
    """Matthews correlation of a confusion matrix Int64[K K].

    Example:
        >>> matthews(torch.tensor([[5, 0], [0, 5]])), matthews(torch.tensor([[5, 0], [5, 0]]))
        (1.0, 0.0)
    """
    rows, right = int(confusion.sum()), int(confusion.trace())
    true, found = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    root = (rows**2 - sum(p * p for p in found)) * (rows**2 - sum(t * t for t in true))
    return (right * rows - sum(p * t for p, t in zip(found, true, strict=True))) / root**0.5 if root else 0.0
