"""What averaging does, episode by episode: gain over the replicas, their spread, the barrier between them, and collapse.

Gain      g = a(mean of the replicas) - (1/M) sum_m a(replica m), a any number of a model, higher is better.
Spread    s = sqrt((1/M) sum_m |theta_m - mean|^2) / |mean|: `spread.py`.
Barrier   of the loss on the segments between neighbouring replicas 0-1, 1-2, ..: `barrier.py`.
Collapse  g below -drop, with the average as it is and with BatchNorm measured anew side by side: `collapse.py`.
Kept      of a replica that ended two numbers and nothing of its weights. The episode's start, which the driver holds anyway,
          lives until its average was looked at: one model more at that moment. Where the barrier is asked for: a copy of the
          replica before, one of this one, one more while a segment is measured.
Processes numbers are gathered at each average; for the barrier each process hands its last replica to the next.
Source    all of it ours: IMWA (arXiv 2404.16331) is open here, as far as it could be read.
Letters   M replicas.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from imwa.averaging import module_tensors
from imwa.barrier import POINTS, Segment, barrier_height, check_points, segment_losses, undisturbed
from imwa.collapse import EpisodeReport, collapse_sentence, has_collapsed
from imwa.group import lost
from imwa.replica import Replica
from imwa.spread import relative_spread, squared_distance
from imwa.trees import copy_state

if TYPE_CHECKING:
    from imwa.driver import IMWA

_log = logging.getLogger(__name__)
_Metric = Callable[[torch.nn.Module], float]
_Held = tuple[int, dict[str, torch.Tensor]]  # a replica's number and copies of its tensors
_Ended = tuple[int, int, float, float]  # episode, replica, metric, squared distance from the episode's start
_Measured = tuple[int, int, int, Segment]  # episode, replica, the replica after it


class Diagnostics:
    """Looks at every replica's end and every average of an `IMWA` loop; changes no number of the training.

    Whatever the callables below draw from global generators, and what they do to training modes and buffers, is undone.

    Args:
        metric: model -> number, higher is better (of a loss give its negative).
        drop: an average that lies this much below its replicas, in the metric's unit, is warned of, once a run.
        recompute: measures the model's BatchNorm statistics anew, in place (`recompute_batch_norm` with a loader).
        recompute_every: episodes between two such measurements; the last average and the first collapse always get one.
        loss: model -> number, lower is better, over a fixed set of samples: of the barrier.
        barrier_in: episodes, from 0, whose barrier is measured.
        points: of the segments, rising from 0 to 1.
        spread: measure it.
        group: the averaging group of torch.distributed that IMWA has; process 0 of it looks at averages, and all get the
            numbers, so that `metric`, `recompute` and `loss` must not talk over this group themselves.
        warn: takes the sentence of a collapse; by default it is logged.

    Attributes:
        reports: an `EpisodeReport` for every average so far.
        segments: (episode, first replica, second replica, `Segment`) of every segment measured so far.
        warning: the sentence of the first collapse, or None.

    Raises:
        ValueError: `barrier_in` without a loss; `recompute_every` below 1, or a `drop` that is not above 0; points that
            do not rise from 0 to 1; the value is named.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> diagnostics = Diagnostics(lambda model: -float(model.weight.square().sum()), drop=10.0)
        >>> from imwa import IMWA
        >>> iterative = IMWA(model, optimizer, replicas=2, episodes=3, steps=6, after_average=diagnostics.after_average)
        >>> for replica in diagnostics.watch(iterative):
        ...     for step in replica.steps:
        ...         optimizer.zero_grad()
        ...         model(torch.randn(8, 2, generator=replica.generator)).square().mean().backward()
        ...         optimizer.step()
        >>> [report.gain >= 0 for report in diagnostics.reports]  # this metric is concave
        [True, True, True]
    """

    def __init__(
        self,
        metric: _Metric,
        *,
        drop: float,
        recompute: Callable[[torch.nn.Module], Any] | None = None,
        recompute_every: int = 1,
        loss: _Metric | None = None,
        barrier_in: Collection[int] = (),
        points: Sequence[float] = POINTS,
        spread: bool = True,
        group: Any = None,
        warn: Callable[[str], Any] = _log.warning,
    ) -> None:
        if barrier_in and loss is None:
            raise ValueError(f"barrier_in is {sorted(barrier_in)}, but there is no loss to measure. Give loss=...")
        if recompute_every < 1 or not drop > 0:
            raise ValueError(
                f"recompute_every is {recompute_every} and drop {drop}; they must be at least 1, and above 0."
            )
        check_points(points)
        self.metric, self.drop, self.recompute, self.recompute_every = metric, drop, recompute, recompute_every
        self.loss, self.barrier_in, self.points, self.spread = loss, frozenset(barrier_in), tuple(points), spread
        self._group, self._warn = group, warn
        self.reports: list[EpisodeReport] = []
        self.segments: list[_Measured] = []
        self.warning: str | None = None
        self._run: IMWA | None = None
        self._start: Mapping[str, torch.Tensor] = {}
        self._clear()

    def watch(self, iterative: "IMWA") -> Iterator[Replica]:
        """The replicas of `for replica in iterative`, each looked at where its steps have ended.

        Raises:
            ValueError: an average was taken that `after_average` was not called on; the mend is named.
        """
        for replica in iterative:
            self._refuse_unseen(before=replica.episode)
            yield replica
            if not len(replica.steps):
                self.replica_ended(iterative, replica)
        self._refuse_unseen(before=None)

    def replica_ended(self, iterative: "IMWA", replica: Replica, *, value: float | None = None) -> None:
        """Look at a replica whose steps have ended, while the model still holds it; `watch` calls it.

        Args:
            iterative: the loop.
            replica: the one that ended.
            value: its metric where that is known already.
        """
        model, episode = iterative.model, replica.episode
        if replica.index == iterative.own.start:  # an episode begins, perhaps once more after `restore_average()`
            self._clear()
            self.segments = [segment for segment in self.segments if segment[0] < episode]
        self._run, self._start = iterative, iterative.start
        value = self._of(self.metric, model) if value is None else value
        measured = episode in self.barrier_in
        square = squared_distance(model, self._start) if self.spread or measured else 0.0
        self._ended.append((episode, replica.index, float(value), square))
        if measured and math.isfinite(square):
            here = (replica.index, copy_state(module_tensors(model)))
            if self._before is not None:
                self._measure(model, episode, before=self._before, after=here)
            elif self._group is not None:
                self._first = here  # its neighbour is in the process before
            self._before = here

    def after_average(self, episode: int, model: torch.nn.Module) -> None:
        """Look at an average: give this to IMWA as `after_average`, or call it there.

        Raises:
            ValueError: no replica of the episode was seen.
            ProcessLost: another process of the group ended.
        """
        run = self._run
        if run is None or not self._ended:
            raise ValueError(
                f"Diagnostics saw no replica of episode {episode}. Iterate: for replica in diagnostics.watch(iterative)."
            )
        if self._group is not None and episode in self.barrier_in:
            self._measure_across(model, episode)
        earlier = [segment for segment in self.segments if segment[0] < episode]
        everyone = self._gather((self._ended, self.segments[len(earlier) :]))
        out = {index for number, index, _ in run.left_out if number == episode}
        ended = [entry for entries, _ in everyone for entry in entries if entry[1] not in out]
        new = sorted((segment for _, found in everyone for segment in found), key=lambda segment: segment[:3])
        self.segments = earlier + new
        last = episode == run.plan.episodes - 1
        made = self._report(model, ended, segments=new, last=last, out=len(out)) if self._is_first else None
        report = self._gather(made)[0]
        self.reports.append(report)
        self._clear()
        if self.warning is None and has_collapsed(report, drop=self.drop):
            self.warning = collapse_sentence(report)
            if self._is_first:
                self._warn(self.warning)

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, in plain values: save it with `IMWA.state_dict()`."""
        return {
            "reports": [tuple(report) for report in self.reports],
            "segments": [(*place, tuple(segment)) for *place, segment in self.segments],
            "warning": self.warning,
            "ended": list(self._ended),
            "before": self._before,
            "first": self._first,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()`."""
        self.reports = [EpisodeReport(*report) for report in state["reports"]]
        self.segments = [(e, m, n, Segment(*segment)) for e, m, n, segment in state["segments"]]
        self.warning, self._ended = state["warning"], list(state["ended"])
        self._before, self._first = state["before"], state["first"]

    @property
    def _is_first(self) -> bool:
        return self._group is None or dist.get_rank(self._group) == 0

    def _clear(self) -> None:
        """Make ready for the next episode."""
        self._ended: list[_Ended] = []
        self._before: _Held | None = None  # this process's replica before
        self._first: _Held | None = None  # with a group, its first
        self._start = {}

    def _refuse_unseen(self, *, before: int | None) -> None:
        """Raise where replicas of an episode other than `before` ended and no average of it was seen."""
        if self._ended and self._ended[-1][0] != before:
            raise ValueError(
                f"Diagnostics saw no average of episode {self._ended[-1][0]}. Give IMWA "
                "after_average=diagnostics.after_average, or call it from your own after_average(episode, model)."
            )

    def _of(self, metric: _Metric, model: torch.nn.Module) -> float:
        with undisturbed(model, dict(model.named_buffers())):
            return float(metric(model))

    def _report(
        self, model: torch.nn.Module, ended: Sequence[_Ended], *, segments: Sequence[_Measured], last: bool, out: int
    ) -> EpisodeReport:
        """Numbers of an average whose replicas are `ended`."""
        episode = ended[0][0]
        replicas = math.fsum(value for _, _, value, _ in ended) / len(ended)
        average = self._of(self.metric, model)
        spread = relative_spread([entry[3] for entry in ended], model, start=self._start) if self.spread else None
        report = EpisodeReport(
            episode=episode,
            replicas=replicas,
            average=average,
            gain=average - replicas,
            spread=spread,
            recomputed=None,
            barrier=_highest([(segment.points, segment.losses) for *_, segment in segments]),
            barrier_recomputed=_highest([(segment.points, segment.recomputed) for *_, segment in segments]),
            left_out=out,
        )
        news = self.warning is None and has_collapsed(report, drop=self.drop)
        if self.recompute is None or not (last or news or (episode + 1) % self.recompute_every == 0):
            return report
        return report._replace(recomputed=self._of(self._measured_anew, model))

    def _measured_anew(self, model: torch.nn.Module) -> float:
        assert self.recompute is not None
        self.recompute(model)
        return self.metric(model)

    def _measure(self, model: torch.nn.Module, episode: int, *, before: _Held, after: _Held) -> None:
        assert self.loss is not None
        first, second = before[1], after[1]
        segment = segment_losses(
            model, first, second=second, loss=self.loss, points=self.points, recompute=self.recompute
        )
        self.segments.append((episode, before[0], after[0], segment))

    def _measure_across(self, model: torch.nn.Module, episode: int) -> None:
        """The segment from the last replica of the process before to the first of this one."""
        theirs = self._pass_on(self._before)
        if theirs is not None and self._first is not None:
            live = module_tensors(model)
            there = {name: value.to(live[name].device) for name, value in theirs[1].items()}
            self._measure(model, episode, before=(theirs[0], there), after=self._first)

    def _gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank."""
        if self._group is None:
            return [value]
        everyone: list[Any] = [None] * dist.get_world_size(self._group)
        with lost("the diagnostics of an average"):
            dist.all_gather_object(everyone, value, group=self._group)
        return everyone

    def _pass_on(self, held: _Held | None) -> _Held | None:
        """Give `held` to the process after this one, and return what the process before it gives."""
        rank, size = dist.get_rank(self._group), dist.get_world_size(self._group)
        sent = [None if held is None else (held[0], {name: value.cpu() for name, value in held[1].items()})]
        box: list[Any] = [None]
        with lost("the diagnostics of an average"):
            for turn in (0, 1):  # even processes send first and odd ones receive, so that none waits for its own kind
                if rank % 2 == turn and rank < size - 1:
                    dist.send_object_list(sent, dst=dist.get_global_rank(self._group, rank + 1), group=self._group)
                if rank % 2 != turn and rank > 0:
                    dist.recv_object_list(box, src=dist.get_global_rank(self._group, rank - 1), group=self._group)
        return box[0]


def _highest(curves: Sequence[tuple[Sequence[float], Sequence[float] | None]]) -> float | None:
    """Highest barrier of several segments, NaN where one has none; None where nothing was measured."""
    heights = [barrier_height(points, losses) for points, losses in curves if losses is not None]
    if not heights:
        return None
    return math.nan if any(map(math.isnan, heights)) else max(heights)
