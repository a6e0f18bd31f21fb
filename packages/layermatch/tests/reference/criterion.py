"""The whole criterion by loops, float64: losses and every gradient. Source: arXiv 2406.14207 (abstract), readings ours."""

from typing import NamedTuple

from reference.grad_relu import (
    Matrix,
    Vector,
    classifier_gradient,
    cross_entropy,
    feature_gradient,
    linear,
    logit_gradient,
    softmax,
)
from reference.weighting import fixed_threshold


class Twin(NamedTuple):
    labelled_loss: float
    unlabelled_loss: float
    pseudo_labels: list[int]
    weights: Vector
    strong_gradient: Matrix
    labelled_gradient: Matrix
    weight_gradient: Matrix
    bias_gradient: Vector


def criterion_twin(
    *,
    labelled: tuple[Matrix, list[int]],
    weak: Matrix,
    strong: Matrix,
    classifier: tuple[Matrix, Vector],
    centres: tuple[Matrix, Vector],
    threshold: float,
    unlabelled_weight: float,
    grad_relu: bool,
) -> Twin:
    """Gradients are those of labelled_loss + unlabelled_weight * unlabelled_loss; `centres` is the classifier itself when off."""
    features, labels = labelled
    logits = linear(features, *classifier)
    labelled_loss = sum(cross_entropy(row, label) for row, label in zip(logits, labels, strict=True)) / len(labels)
    probabilities = [softmax(row) for row in linear(weak, *centres)]
    pseudo_labels = [row.index(max(row)) for row in probabilities]
    weights = fixed_threshold(probabilities, threshold)
    strong_logits = linear(strong, *centres)
    terms = [k * cross_entropy(z, y) for k, z, y in zip(weights, strong_logits, pseudo_labels, strict=True)]
    delta = logit_gradient(strong_logits, pseudo_labels, [unlabelled_weight * k for k in weights])
    delta_labelled = logit_gradient(logits, labels, [1.0] * len(labels))
    weight_gradient, bias_gradient = classifier_gradient(delta_labelled, features)
    if not grad_relu:
        extra_weight, extra_bias = classifier_gradient(delta, strong)
        weight_gradient = [
            [a + b for a, b in zip(x, y, strict=True)] for x, y in zip(weight_gradient, extra_weight, strict=True)
        ]
        bias_gradient = [a + b for a, b in zip(bias_gradient, extra_bias, strict=True)]
    return Twin(
        labelled_loss,
        sum(terms) / len(terms),
        pseudo_labels,
        weights,
        feature_gradient(delta, centres[0]),
        feature_gradient(delta_labelled, classifier[0]),
        weight_gradient,
        bias_gradient,
    )
