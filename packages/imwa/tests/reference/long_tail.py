"""Slow twins of the long-tail losses: loops over samples and classes in plain Python, written from the papers' equations."""

import math


def log_softmax_at(logits, label):
    top = max(logits)
    return logits[label] - top - math.log(sum(math.exp(value - top) for value in logits))


def balanced_softmax(logits, labels, counts):
    rows = [[z + math.log(n) for z, n in zip(row, counts, strict=True)] for row in logits]
    return -sum(log_softmax_at(row, label) for row, label in zip(rows, labels, strict=True)) / len(labels)


def logit_adjustment(logits, labels, counts, tau):
    total = sum(counts)
    rows = [[z + tau * math.log(n / total) for z, n in zip(row, counts, strict=True)] for row in logits]
    return -sum(log_softmax_at(row, label) for row, label in zip(rows, labels, strict=True)) / len(labels)


def ldam(cosines, labels, counts, largest_margin, scale, weights=None):
    least = min(counts)
    margins = [largest_margin * (least / n) ** 0.25 for n in counts]
    total, norm = 0.0, 0.0
    for row, label in zip(cosines, labels, strict=True):
        moved = [scale * (z - margins[k] if k == label else z) for k, z in enumerate(row)]
        weight = 1.0 if weights is None else weights[label]
        total -= weight * log_softmax_at(moved, label)
        norm += weight
    return total / norm


def cosine_logits(features, weight):
    def length(vector):
        return math.sqrt(sum(value * value for value in vector))

    return [[sum(a * b for a, b in zip(f, w, strict=True)) / (length(f) * length(w)) for w in weight] for f in features]


def effective_number_weights(counts, beta):
    raw = [(1 - beta) / (1 - beta**n) for n in counts]
    return [len(counts) * value / sum(raw) for value in raw]
