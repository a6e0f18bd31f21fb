"""Masked log-likelihood of one row, window by window, base by base; the model is a function from a row to its tables of ln p."""


def log_likelihood(ids, predict, *, k, width, mask, known):
    """Sum of ln p over the known tokens, how many they are, and the hidden bases inside them."""
    total, tokens, bases = 0.0, 0, 0
    together = max(1, width - 2 * (k - 1))
    before = (width - together) // 2
    for first in range(0, len(ids), together):
        scored = range(first, min(first + together, len(ids)))
        window = range(max(0, first - before), min(first - before + width, len(ids)))
        row = [mask if place in window and known(token) else token for place, token in enumerate(ids)]
        shown = [place for place, token in enumerate(row) if token != mask and known(token)]
        tables = predict(row)
        for place in scored:
            if known(ids[place]):
                total += tables[place][ids[place]]
                tokens += 1
                for base in range(place, place + k):
                    bases += not any(other <= base < other + k for other in shown)
    return total, tokens, bases
