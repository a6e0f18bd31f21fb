"""Pure functions of the step: the learning rate's factor, and momentum by half-life.

Source    cosine 7/16: FixMatch, arXiv 2001.07685, section 2.4.
"""

from math import cos, pi


def cosine_factor(step: int, steps: int) -> float:
    """cos(7 pi t / 16 T): 1 at step 0, 0.195 at the end, no warm-up.

    Args:
        step: t, from 0.
        steps: T, of the whole run, at least 1.
    """
    return cos(7.0 * pi * step / (16.0 * steps))


def half_life_momentum(steps: int, *, share: float = 0.01) -> float:
    """M = 0.5 ** (1 / (share T)): an average whose memory of its start halves in that share of the run.

    The commands use it, so that short runs are not slowed by a half-life of 693 steps (m = 0.999); the share 0.01 is
    ours and not tuned.

    Args:
        steps: T, of the whole run, at least 1.
        share: half-life as a share of the run, above 0.

    Raises:
        ValueError: `steps` or `share` is out of range; it is named.
    """
    if steps < 1 or not share > 0.0:
        raise ValueError(f"steps is {steps} and share {share}; at least one step and a share above 0 are needed.")
    return 0.5 ** (1.0 / (share * steps))
