"""`imwa doctor RUN`: what is wrong with a run in its own numbers."""

from typing import Any

from imwa.collapse import EpisodeReport, collapse_sentence, has_collapsed
from imwa.training.report import COLLAPSE, averages
from scarce_common_utils.doctor import DoctorConfig, Run, Symptom, examine, flat_loss, is_number

# Points that an average of the end lies below its replicas without a collapse. README: the last average gains 0.0 to 0.1.
BELOW = 2.0
# Points that BatchNorm measured anew gives to the final model. README's runs of several averages differ by less than one.
STALE = 2.0
AT_ZERO = 0.0  # % right: not one test image of the class
LOOKED_AT = (
    "averages and their replicas, BatchNorm measured anew",
    "classes by frequency",
    "training loss",
    "replicas left out",
)


def doctor(config: DoctorConfig) -> dict[str, Any]:
    """Say what is wrong with a run in words: what was seen, the likely cause, what to try."""
    return examine(config, package="imwa", symptoms={"train": symptoms}, looked_at=LOOKED_AT)


def symptoms(run: Run) -> list[Symptom]:
    """What the numbers of a run of `imwa train` show."""
    try_ = "Try --learning-rate three times smaller, then larger; a longer run (--steps); --warm-up 0.1."
    found = [
        _collapsed(run) or _below(run) or _stale(run),
        _tail_at_zero(run),
        flat_loss(run, "loss", called="The loss, over all replicas,", try_=try_),
        _left_out(run),
    ]
    return [symptom for symptom in found if symptom is not None]


def _reports(run: Run) -> list[EpisodeReport]:
    """What each average did, as far as the metrics say."""
    return [
        EpisodeReport(
            line["episode"],
            line["replica_accuracy"],
            line["average_accuracy"],
            line["gain"],
            line.get("spread"),
            line.get("recomputed_accuracy"),
            line.get("barrier"),
            line.get("barrier_recomputed"),
            int(line.get("left_out") or 0),
        )
        for line in averages(run.lines)
        if all(is_number(line.get(name)) for name in ("replica_accuracy", "average_accuracy", "gain"))
    ]


def _collapsed(run: Run) -> Symptom | None:
    """The worst average, where it lies far below its replicas; the words are those of the run's own warning."""
    reports = _reports(run)
    bad = [report for report in reports if has_collapsed(report, drop=COLLAPSE)]
    if not bad:
        return None
    measured = [report for report in bad if report.recomputed is not None]
    told = collapse_sentence(min(measured or bad, key=lambda report: report.gain))
    seen, _, rest = told.partition(" lost.")
    cause, _, try_ = rest.strip().partition(". ")
    return Symptom(
        "An average is far below its replicas",
        f"Of {len(reports)} averages {len(bad)}. {seen} lost.",
        cause + ".",
        try_,
    )


def _below(run: Run) -> Symptom | None:
    """The last average, where it lies below its replicas though it did not collapse."""
    reports = _reports(run)
    if not reports or reports[-1].gain > -BELOW:
        return None
    last = reports[-1]
    anew = "" if last.recomputed is None else f" With BatchNorm measured anew it has {last.recomputed:.2f} %."
    return Symptom(
        "The last average is below its replicas",
        f"{last.average:.2f} % against {last.replicas:.2f} % in their mean, {last.gain:+.2f} points.{anew}",
        "Replicas part too far within an episode: few averages, a learning rate that is still high at the end, or one average from a "
        "random start.",
        "More --episodes, a schedule that ends at 0 (--schedule cosine), or --shared-start 0.1. Compare with --method single at as many "
        "steps as the cost: it is the same budget.",
    )


def _stale(run: Run) -> Symptom | None:
    """The final model, where its averaged BatchNorm statistics cost accuracy."""
    plain, anew = run.number("accuracy"), run.number("accuracy_recomputed")
    if plain is None or anew is None or anew - plain < STALE:
        return None
    return Symptom(
        "BatchNorm's statistics cost accuracy",
        f"The final model has {plain:.2f} % as it was averaged and {anew:.2f} % with BatchNorm measured anew.",
        "Averaged running means and variances belong to no network; a single run that moves fast at its end lags behind too.",
        "Measure them anew before use: imwa.recompute_batch_norm on some shuffled training batches. Or train with --batch-norm pooled.",
    )


def _tail_at_zero(run: Run) -> Symptom | None:
    classes = run.file("by_class.json")
    if not isinstance(classes, dict):
        return None
    zero = {name: row["training"] for name, row in classes.items() if row.get("accuracy") == AT_ZERO}
    if not zero:
        return None
    most = max(row["training"] for row in classes.values())
    rare = sorted(zero, key=lambda name: zero[name])
    named = ", ".join(f"{name} ({zero[name]})" for name in rare[:6]) + (" and more" if len(rare) > 6 else "")
    return Symptom(
        "Classes are never right",
        f"Of {len(classes)} classes {len(zero)} have an accuracy of 0 %. With their training images: {named}; the most frequent class "
        f"has {most}.",
        "Rare classes lose against frequent ones, or the run is too short to reach them.",
        "--loss balanced-softmax or logit-adjustment; --tau 1, which corrects the finished model; --retrain-steps, which trains its "
        "classifier anew; and more --steps.",
    )


def _left_out(run: Run) -> Symptom | None:
    lines = [line for line in averages(run.lines) if line.get("left_out")]
    if not lines:
        return None
    count = sum(int(line["left_out"]) for line in lines)
    return Symptom(
        "Replicas were left out",
        f"In no average since they diverged: {count}, the first in episode {lines[0].get('episode')}.",
        "Their loss was no number: a learning rate that is too high, or half precision that overflows.",
        "Lower --learning-rate, add --warm-up 0.1, or compute in --precision float32.",
    )
