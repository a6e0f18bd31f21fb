"""Correlations by loops, float64. Source: Pearson 1896; Spearman 1904, ties at their mean rank."""

from math import sqrt


def pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    root = sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))
    return top / root if root else 0.0


def ranks(x):
    return [sum(other < one for other in x) + (1 + sum(other == one for other in x)) / 2 for one in x]


def spearman(x, y):
    return pearson(ranks(x), ranks(y))
