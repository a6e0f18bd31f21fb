"""What one average did, in numbers, and the sentence for one that collapsed: why, and what to try.

Collapse  an average far below its replicas. Two causes look alike, and need different mends:
          stale statistics   averaged running means and variances of BatchNorm belong to no network. Measured anew on training
                             batches they give the accuracy back; the weights are fine.
          different basins   the replicas parted so far that the mean of their weights is a bad network; nothing measured anew helps.
Share     (recomputed - average) / (replicas - average) of the loss is given back by measuring anew; from half on the
          statistics are called its cause. The replicas count with the statistics that they trained.
          A small net from a random start, one average: 96.6 for the replicas, 70.8 as averaged, 92.2 measured anew: 83 %.
Source    ours; averaged statistics: REPAIR (arXiv 2211.08403); basins: Frankle et al. 2019 (arXiv 1912.05671).
"""

from typing import NamedTuple

MOSTLY = 0.5


class EpisodeReport(NamedTuple):
    """What one average did.

    Attributes:
        episode: its number, from 0.
        replicas: mean metric of the replicas that are in the average.
        average: metric of the average, BatchNorm as averaged.
        gain: `average - replicas`.
        spread: of the replicas around the average, see `spread.py`; None where it was not asked for.
        recomputed: metric of the average with BatchNorm measured anew; None where it was not.
        barrier: highest between neighbouring replicas, in the loss's unit; None where it was not measured.
        barrier_recomputed: the same with BatchNorm measured anew at every point, or None.
        left_out: replicas that held a NaN and are not in the average.
    """

    episode: int
    replicas: float
    average: float
    gain: float
    spread: float | None
    recomputed: float | None
    barrier: float | None
    barrier_recomputed: float | None
    left_out: int


def has_collapsed(report: EpisodeReport, *, drop: float) -> bool:
    """Whether the average lies more than `drop` below its replicas."""
    return report.gain < -drop


def collapse_sentence(report: EpisodeReport) -> str:
    """Why the average of an episode is far below its replicas, as far as its numbers tell, and what to try."""
    told = (
        f"The average of episode {report.episode} is far below its replicas: {report.average:.4g} against "
        f"{report.replicas:.4g} in the mean, {-report.gain:.4g} lost."
    )
    if report.recomputed is None:
        return (
            f"{told} BatchNorm was not measured anew, so it is open whether its averaged statistics are to blame, which belong "
            f"to no network, or replicas that left for different basins. Measure it anew to tell. {_STATISTICS} {_BASINS}"
        )
    share = (report.recomputed - report.average) / -report.gain
    told += f" With BatchNorm measured anew it has {report.recomputed:.4g}"
    if share <= 0:
        return f"{told}, so its statistics are not to blame: the replicas left for different basins. {_BASINS}"
    told += f", which gives {min(round(100 * share), 100)} % of it back: "
    if share >= MOSTLY:
        return (
            f"{told}it is mostly stale statistics (averaged running means and variances belong to no network), "
            f"not different basins. {_STATISTICS}"
            + ("" if share > 0.9 else f" For the rest: {_BASINS[0].lower()}{_BASINS[1:]}")
        )
    return f"{told}it is mostly different basins, and stale statistics are the smaller part. {_BASINS} {_STATISTICS}"


_STATISTICS = (
    "For BatchNorm: evaluate and keep the final model with statistics measured anew (recompute_batch_norm, on shuffled and "
    'augmented training batches), or pool them (batch_norm="pooled").'
)
_BASINS = (
    "Let replicas part less: average more often (more episodes), lower the learning rate, or start them from one run that "
    "has trained a little (a tenth of the steps) or from a pre-trained model."
)
