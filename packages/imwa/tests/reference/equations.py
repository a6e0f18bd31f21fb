"""Closed forms of the paper page's oracles, as loops; nothing of the package is used."""

import itertools

import torch


def shared_hessian(start, hessian, rates, targets):
    """O4: theta_T = prod_t (I - r_t A) theta_0 + sum_t [prod_{s>t} (I - r_s A)] r_t A mean_m b_{m,t}."""
    size = len(start)
    identity = torch.eye(size, dtype=torch.float64)
    result = start.clone()
    for rate in rates:
        result = (identity - rate * hessian) @ result
    for t, rate in enumerate(rates):
        term = rate * hessian @ (sum(targets[t]) / len(targets[t]))
        for later in rates[t + 1 :]:
            term = (identity - later * hessian) @ term
        result = result + term
    return result


def own_hessians(start, hessians, rates, targets, borders):
    """O4': the same with Hessians A_{m,t}; a mean over m at every border."""
    identity = torch.eye(len(start), dtype=torch.float64)
    theta = start.clone()
    for begin, end in itertools.pairwise(borders):
        ends = []
        for m in range(len(targets[0])):
            value = theta.clone()
            for t in range(begin, end):
                value = (identity - rates[t] * hessians[t][m]) @ value
            for t in range(begin, end):
                term = rates[t] * hessians[t][m] @ targets[t][m]
                for s in range(t + 1, end):
                    term = (identity - rates[s] * hessians[s][m]) @ term
                value = value + term
            ends.append(value)
        theta = sum(ends) / len(ends)
    return theta


def heavy_ball(start, hessian, rates, targets, *, momentum=0.9, nesterov=False):
    """O4'': one run with momentum on the mean target of every step."""
    theta, velocity = start.clone(), torch.zeros_like(start)
    for t, rate in enumerate(rates):
        gradient = hessian @ (theta - sum(targets[t]) / len(targets[t]))
        velocity = momentum * velocity + gradient
        theta = theta - rate * (gradient + momentum * velocity if nesterov else velocity)
    return theta


def stationary_variance(curvature, rate, replicas):
    """O8: variance of the average under unit gradient noise, r a / (2 - r a) / M for noise in the target."""
    return rate * curvature / (2 - rate * curvature) / replicas
