"""The weighting rules, one sample at a time. FixedThreshold: FixMatch, arXiv 2001.07685, equation 4; its code has >=."""


def fixed_threshold(probabilities: list[list[float]], threshold: float) -> list[float]:
    return [1.0 if max(row) >= threshold else 0.0 for row in probabilities]
