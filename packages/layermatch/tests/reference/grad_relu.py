"""Loops over the equations of a linear classifier, float64. Source: arXiv 2406.14207 as read on the first page of the package."""

from math import exp, log

Matrix = list[list[float]]
Vector = list[float]


def linear(features: Matrix, weight: Matrix, bias: Vector) -> Matrix:
    """z_ic = sum_d f_id w_cd + b_c."""
    return [
        [sum(f * w for f, w in zip(row, centre, strict=True)) + b for centre, b in zip(weight, bias, strict=True)]
        for row in features
    ]


def softmax(logits: Vector) -> Vector:
    top = max(logits)
    powers = [exp(value - top) for value in logits]
    return [power / sum(powers) for power in powers]


def cross_entropy(logits: Vector, label: int) -> float:
    return -log(softmax(logits)[label])


def logit_gradient(logits: Matrix, labels: list[int], weights: Vector) -> Matrix:
    """delta_ic = k_i (p_ic - 1[c = label_i]) / U."""
    return [
        [k * (p - (c == label)) / len(logits) for c, p in enumerate(softmax(row))]
        for row, label, k in zip(logits, labels, weights, strict=True)
    ]


def feature_gradient(delta: Matrix, weight: Matrix) -> Matrix:
    """dF_id = sum_c delta_ic w_cd."""
    width = len(weight[0])
    return [[sum(d * weight[c][j] for c, d in enumerate(row)) for j in range(width)] for row in delta]


def classifier_gradient(delta: Matrix, features: Matrix) -> tuple[Matrix, Vector]:
    """dW_cd = sum_i delta_ic f_id and db_c = sum_i delta_ic."""
    classes, width = len(delta[0]), len(features[0])
    weight = [
        [sum(row[c] * f[j] for row, f in zip(delta, features, strict=True)) for j in range(width)]
        for c in range(classes)
    ]
    return weight, [sum(row[c] for row in delta) for c in range(classes)]


def agreement_gate(unlabelled: tuple[Matrix, Vector], labelled: tuple[Matrix, Vector]) -> list[float]:
    """Reading R2 (ours): a_c = 1 if <G_u,c, G_l,c> > 0 else 0, from the gradients (weight, bias) of both losses."""
    gates = []
    for u_row, u_bias, l_row, l_bias in zip(*unlabelled, *labelled, strict=True):
        inner = sum(a * b for a, b in zip(u_row, l_row, strict=True)) + u_bias * l_bias
        gates.append(1.0 if inner > 0.0 else 0.0)
    return gates
