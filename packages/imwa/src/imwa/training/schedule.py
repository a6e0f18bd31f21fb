"""Learning rate as a function of the global step, the same for every replica and episode.

cosine    rate · (1 + cos(pi t / T)) / 2: to 0 at the end.
constant  rate, for averages over time (an EMA) that a falling rate would make pointless.
steps     linear warm-up over the first 2.5 % of the run, then rate; times 0.01 from 80 %, times 0.0001 from 90 %: the
          CIFAR-LT schedule (5, 160 and 180 of 200 epochs; LDAM-DRW code) as shares of any run.
Warm-up   over the first W steps any of them is multiplied by (t + 1) / W.
"""

import math

SCHEDULES = ("cosine", "constant", "steps")


def learning_rate(name: str, step: int, *, steps: int, rate: float, warm_up: int = 0) -> float:
    """Rate of global step `step`, from 0, of a run of `steps`; `name` is one of SCHEDULES, `warm_up` is W in steps."""
    if step < warm_up:
        rate = rate * (step + 1) / warm_up
    if name == "constant":
        return rate
    if name == "cosine":
        return rate * (1 + math.cos(math.pi * step / steps)) / 2
    own = max(1, steps * 25 // 1000)
    if step < own:
        return rate * (step + 1) / own
    return rate * (1e-4 if 10 * step >= 9 * steps else 1e-2 if 10 * step >= 8 * steps else 1.0)
