"""Measures of attention, query by query, as the module's docstring defines them. Loops, float64."""

import math


def of_query(weights: list[float], query: int, tokens: int, reach: int) -> list[float]:
    keys = weights[:tokens]
    entropy = -sum(a * math.log(a) for a in keys if a > 0) / math.log(tokens)
    near = sum(a for key, a in enumerate(keys) if abs(key - query) <= reach)
    return [entropy, max(keys), keys[0], keys[tokens - 1], near]


def measures(attention: list, lengths: list[int], reach: int) -> list[list[float]]:
    """[H 5] means over all queries that are not padding, of weights [N H T T]."""
    heads = len(attention[0])
    found = []
    for head in range(heads):
        queries = [
            of_query(attention[row][head][query], query, tokens, reach)
            for row, tokens in enumerate(lengths)
            for query in range(tokens)
        ]
        found.append([sum(column) / len(queries) for column in zip(*queries, strict=True)])
    return found
