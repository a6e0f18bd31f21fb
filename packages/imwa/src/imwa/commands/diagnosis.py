"""From the options of `imwa train` to its diagnostics: which episodes are looked at how closely, and by which numbers.

Accuracies are of the test images, in percent. The loss on a segment is the plain cross-entropy, in nats, over training images as
they are (not augmented), at most LOSS_IMAGES of them, evenly spaced over the set; the model is in eval mode.
"""

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from imwa.diagnostics import Diagnostics
from imwa.training.company import Company
from imwa.training.evaluation import logits_of
from imwa.training.report import COLLAPSE
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import Record
from scarce_common_utils.run_folder import to_stderr

if TYPE_CHECKING:
    from imwa.commands.job import Job
    from imwa.commands.train import TrainConfig

LOSS_IMAGES = 1024
MEASUREMENTS = 10  # of BatchNorm anew in a run, where nothing else was asked for


def build_diagnostics(config: "TrainConfig", job: "Job", together: Company) -> Diagnostics | None:
    """What looks at the run's averages; None where one replica trains, or it was not wanted.

    Raises:
        UserError: --barrier names an episode that the run has not; it is named.
    """
    episodes = max(stage.episodes for stage, _ in job.state.stages if stage.replicas == job.replicas)
    barrier_in = chosen_episodes(config.barrier, episodes)
    if job.replicas == 1:
        return None
    looking = config.diagnostics
    return Diagnostics(
        lambda model: job.evaluation(model).accuracy,
        drop=COLLAPSE if looking else float("inf"),
        recompute=job.measure_norms if looking else None,
        recompute_every=config.recompute_every or max(1, episodes // MEASUREMENTS),
        loss=lambda model: training_loss(job, model),
        barrier_in=barrier_in,
        spread=looking,
        group=together.group,
        warn=lambda sentence: to_stderr(textwrap.fill(f"imwa: {sentence}", 80)),
    )


def noted(record: Record, job: "Job") -> Record:
    """The record with the sentence of a collapse, if there was one."""
    diagnostics = job.state.diagnostics
    if diagnostics is None or diagnostics.warning is None:
        return record
    return replace(record, notes=[*record.notes, diagnostics.warning])


def chosen_episodes(text: str | None, episodes: int) -> list[int]:
    """Episodes of --barrier: "all", or numbers from 0 and "last" with commas between them.

    Raises:
        UserError: another word, or a number that is no episode of the run.

    Example:
        >>> chosen_episodes("0,4,last", 10)
        [0, 4, 9]
    """
    if text is None:
        return []
    if text == "all":
        return list(range(episodes))
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if word != "last" and not (word.isdecimal() and int(word) < episodes)]
    if wrong:
        raise UserError(
            f"--barrier is {text!r}, and {wrong[0]!r} is no episode of this run. Give all, or numbers from 0 to {episodes - 1} "
            "and last with commas between them, such as 0,last."
        )
    return sorted({episodes - 1 if word == "last" else int(word) for word in words})


def training_loss(job: "Job", model: nn.Module) -> float:
    """Mean cross-entropy of the model in eval mode over the images of the module docstring, in nats."""
    places = torch.linspace(0, len(job.training) - 1, min(LOSS_IMAGES, len(job.training))).round().long()
    images = job.training_images(places)
    logits = logits_of(model, images, prepare=job.prepare, autocast=job.autocast())
    labels = job.training.labels[places].to(logits.device)
    return float(nn.functional.cross_entropy(logits.float(), labels))
