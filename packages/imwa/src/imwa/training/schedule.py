"""Learning rate as a function of the global step, the same for every replica and episode.

cosine    rate · (1 + cos(pi t / T)) / 2: to 0 at the end.
steps     linear warm-up over the first 2.5 % of the run, then rate; times 0.01 from 80 %, times 0.0001 from 90 %: the
          CIFAR-LT schedule (5, 160 and 180 of 200 epochs; LDAM-DRW code) as shares of any run.
"""

import math

SCHEDULES = ("cosine", "steps")


def learning_rate(name: str, step: int, *, steps: int, rate: float) -> float:
    """Rate of global step `step`, from 0, of a run of `steps`; `name` is one of SCHEDULES."""
    if name == "cosine":
        return rate * (1 + math.cos(math.pi * step / steps)) / 2
    warm_up = max(1, steps * 25 // 1000)
    if step < warm_up:
        return rate * (step + 1) / warm_up
    return rate * (1e-4 if 10 * step >= 9 * steps else 1e-2 if 10 * step >= 8 * steps else 1.0)
