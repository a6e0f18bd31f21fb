"""Gain, spread and barrier by loops over python's own floats; nothing of the package is used.

Spread    s = sqrt((1/M) sum_m |theta_m - mean|^2) / |mean|
Barrier   B = max_t [L((1-t) theta_0 + t theta_1) - (1-t) L(theta_0) - t L(theta_1)]
"""

import copy
import math

import torch


def weights(model):
    """Entries of all trained weights, tied ones once, as one list."""
    return [
        value for weight in model.parameters() if weight.requires_grad for value in weight.double().reshape(-1).tolist()
    ]


def slow_gain(metric, average, replicas):
    values = [metric(replica) for replica in replicas]
    return metric(average) - sum(values) / len(values)


def slow_spread(replicas):
    ends = [weights(replica) for replica in replicas]
    mean = [sum(entries) / len(ends) for entries in zip(*ends, strict=True)]
    between = sum((value - middle) ** 2 for end in ends for value, middle in zip(end, mean, strict=True)) / len(ends)
    return math.sqrt(between) / math.sqrt(sum(middle**2 for middle in mean))


def slow_losses(first, second, loss, points):
    """Loss at each point, of a new model mixed entry by entry; whole numbers come from the nearer end."""
    values = []
    for t in points:
        mixed = copy.deepcopy(first)
        states = zip(
            mixed.state_dict().values(), first.state_dict().values(), second.state_dict().values(), strict=True
        )
        for target, one, other in states:
            if one.is_floating_point():
                pairs = zip(one.double().reshape(-1).tolist(), other.double().reshape(-1).tolist(), strict=True)
                entries = [(1 - t) * x + t * y for x, y in pairs]
                target.copy_(torch.tensor(entries, dtype=torch.float64).reshape(one.shape))
            else:
                target.copy_(other if t > 0.5 else one)
        values.append(float(loss(mixed)))
    return values


def slow_barrier(points, losses):
    return max(value - (1 - t) * losses[0] - t * losses[-1] for t, value in zip(points, losses, strict=True))
