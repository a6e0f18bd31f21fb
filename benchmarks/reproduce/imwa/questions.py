"""The questions that the IMWA reproduction answers: paired differences with 95 % intervals, whatever their sign.

Each compares one number of one arm with one number of another over the seeds that both have. Of averaged arms the numbers with
BatchNorm recomputed are taken, so that stale statistics are not mistaken for basins; of arms that are no average both numbers
are those of a trained network. The differences are not corrected for how many are looked at.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from reproduce.protocol import Experiment
from scarce_common_utils.figures import table
from scarce_common_utils.records import Record, difference_text, paired_difference

RECOMPUTED = "accuracy_recomputed"


class Question(NamedTuple):
    """`number` of `arm` minus `other_number` of `other`."""

    text: str
    arm: str
    number: str
    other: str
    other_number: str


def _imwa_questions(arm: str) -> tuple[Question, ...]:
    return (
        Question(f"{arm} over one run of 3 T steps", arm, RECOMPUTED, "single-3t", RECOMPUTED),
        Question(f"{arm} over batch 3 x 64", arm, RECOMPUTED, "batch-192", RECOMPUTED),
        Question(f"{arm} over batch 3 x 64, rate x 3", arm, RECOMPUTED, "batch-192-x3", RECOMPUTED),
        Question(f"{arm} over MWA, equal cost", arm, RECOMPUTED, "mwa", RECOMPUTED),
        Question(f"{arm} over MWA after a shared start", arm, RECOMPUTED, "mwa-shared", RECOMPUTED),
        Question(f"{arm} over the ensemble of MWA's replicas", arm, RECOMPUTED, "mwa", "ensemble"),
        Question(f"{arm} over the mean single run (a third of the cost)", arm, RECOMPUTED, "mwa", "replica_accuracy"),
        Question(f"EMA + {arm} over EMA of one run of 3 T steps", arm, "ema_recomputed", "single-3t", "ema_recomputed"),
        Question(f"EMA + {arm} over {arm}", arm, "ema_recomputed", arm, RECOMPUTED),
    )


QUESTIONS = (
    Question("MWA over the mean single run, BN averaged", "mwa", "accuracy", "mwa", "replica_accuracy"),
    Question("MWA over the mean single run, BN recomputed", "mwa", RECOMPUTED, "mwa", "replica_accuracy"),
    Question("MWA after a shared start over the mean single run", "mwa-shared", RECOMPUTED, "mwa", "replica_accuracy"),
    Question("MWA after a shared start over one run of 3 T steps", "mwa-shared", RECOMPUTED, "single-3t", RECOMPUTED),
    *_imwa_questions("imwa-e5"),
    *_imwa_questions("imwa-e30"),
    Question("E = 30 over E = 5", "imwa-e30", RECOMPUTED, "imwa-e5", RECOMPUTED),
    Question("reset over average, E = 10", "imwa-reset", RECOMPUTED, "imwa", RECOMPUTED),
    Question("reset over average, E = 30", "imwa-e30-reset", RECOMPUTED, "imwa-e30", RECOMPUTED),
    Question("local over average, E = 30", "imwa-e30-local", RECOMPUTED, "imwa-e30", RECOMPUTED),
    Question("one run of 3 T steps over one of T", "single-3t", RECOMPUTED, "single", RECOMPUTED),
    Question("M = 2, E = 30 over one run of 2 T steps", "imwa-m2-e30", RECOMPUTED, "single-2t", RECOMPUTED),
    Question("M = 2, E = 30 over batch 2 x 64", "imwa-m2-e30", RECOMPUTED, "batch-128", RECOMPUTED),
    Question("M = 5, E = 30 over one run of 5 T steps", "imwa-m5-e30", RECOMPUTED, "single-5t", RECOMPUTED),
    Question("M = 5, E = 30 over batch 5 x 64", "imwa-m5-e30", RECOMPUTED, "batch-320", RECOMPUTED),
    *(
        Question(f"one average at {share:g} T, then one run, over one run of T", f"mwa-until-{share}", RECOMPUTED, "single", RECOMPUTED)
        for share in (0.1, 0.3, 0.5, 0.7, 0.9)
    ),
)  # fmt: skip


def closing(experiments: Sequence[Experiment], records: Sequence[Record]) -> str:
    """What stands below the tables: every question that several seeds of an experiment can answer."""
    lines = []
    for experiment in experiments:
        own = [record for record in records if record.experiment == experiment.name]
        lines += [
            [experiment.name, question.text, found] for question in QUESTIONS if (found := _answer(question, own))
        ]
    if not lines:
        return ""
    heading = "\nQuestions, in points of test accuracy: mean ± half-width of the 95 % interval over paired seeds."
    return "\n".join([heading, table(["experiment", "question", "difference"], lines)])


def _answer(question: Question, own: Sequence[Record]) -> str | None:
    """The difference, or None without two seeds that have both numbers."""
    sides = (
        ("one", question.arm, question.number),
        ("other", question.other, question.other_number),
    )
    picked = [
        replace(record, arm=side, numbers={"value": record.numbers[number]})
        for side, arm, number in sides
        for record in own
        if record.arm == arm and record.numbers.get(number) is not None
    ]
    seeds = [{record.seed for record in picked if record.arm == side} for side, _, _ in sides]
    if len(seeds[0] & seeds[1]) < 2:
        return None
    return difference_text(paired_difference(picked, arm="one", baseline="other", number="value"))
