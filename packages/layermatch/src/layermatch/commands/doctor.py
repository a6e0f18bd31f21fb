"""`layermatch doctor RUN`: what is wrong with a run in its own numbers.

Thresholds are ours. What a reading counts is in `training/loop.py`; "the end" is the last fifth of the readings.
"""

from itertools import pairwise
from typing import Any

from scarce_common_utils.doctor import DoctorConfig, Run, Symptom, ends, examine, flat_loss, last_fifth

# Share of unlabelled images whose pseudo-label counts. README's table has 0.3 to 0.6 for runs that work; below one in a hundred a
# step of 112 unlabelled images has one of them, above 99 in a hundred the threshold decides nothing.
RATE_OF_NONE, RATE_OF_ALL = 0.01, 0.99
GOOD_PSEUDO_LABELS = 90.0  # % right: with these a rate of 1 is a model that is sure and right, as on the digits
# Of the pseudo-labels used, on one class: from half of them on, where a fair share is at most a quarter of that.
ONE_CLASS, FAIR_SHARES = 0.5, 4.0
# Points that pseudo-labels, or the accuracy, end below their best fifth. README's deviations over seeds are 3.8 to 6.8 points.
FALL = 7.0
LOOKED_AT = (
    "share of pseudo-labels used",
    "their classes",
    "their accuracy",
    "labelled loss",
    "test accuracy",
    "steps left out",
)


def doctor(config: DoctorConfig) -> dict[str, Any]:
    """Say what is wrong with a run in words: what was seen, the likely cause, what to try."""
    return examine(config, package="layermatch", symptoms={"train": symptoms}, looked_at=LOOKED_AT)


def symptoms(run: Run) -> list[Symptom]:
    """What the numbers of a run of `layermatch train` show."""
    try_ = "Try --learning-rate three times smaller, then larger; more --steps; and look at some labels (figures/views.png)."
    found = [
        _mask_rate(run),
        _one_class(run),
        _forgotten_classes(run),
        _falling_pseudo_labels(run),
        flat_loss(run, "labelled_loss", called="The loss on labelled images", try_=try_),
        _falling_accuracy(run),
        _left_out(run),
    ]
    return [symptom for symptom in found if symptom is not None]


def _mask_rate(run: Run) -> Symptom | None:
    rates = run.values("mask_rate")
    course = ends(rates)
    if course is None:
        return None
    rate, threshold = course[1], run.options.get("threshold")
    said = "learnt by the rule" if threshold is None else f"--threshold is {threshold:g}"
    if rate < RATE_OF_NONE:
        return Symptom(
            "No pseudo-label counts (mask rate 0)",
            f"{100 * rate:.2g} % of the unlabelled images are used at the end, at most {100 * max(rates):.2g} % before; {said}.",
            "The model is never as sure as the threshold asks: too few steps, too few labels, or a threshold that is too high. Such a "
            "run is the supervised baseline.",
            "More --steps first (confidence comes late); then a lower --threshold, or --weighting freematch, which learns its own.",
        )
    right = ends(run.values("pseudo_label_accuracy"))
    if rate > RATE_OF_ALL and (right is None or right[1] < GOOD_PSEUDO_LABELS):
        known = "how many are right is not known" if right is None else f"{right[1]:.1f} % of them are right"
        return Symptom(
            "Every pseudo-label counts (mask rate 1)",
            f"{100 * rate:.1f} % of the unlabelled images are used at the end, and {known}; {said}.",
            "The threshold lets everything through, or the model is sure of what is wrong. --weighting softmatch weighs every image by "
            "design, so that its rate says less.",
            "A higher --threshold (0.95 is the default), a smaller --unlabelled-weight, or more labels for each class.",
        )
    return None


def _counts(run: Run) -> list[float]:
    """Pseudo-labels used of each class at the end; empty where they are not counted or none was used."""
    lines = last_fifth([line for line in run.lines if line.get("used_of_class_0") is not None])
    classes = sum(name.startswith("used_of_class_") for name in lines[0]) if lines else 0
    counts = [sum(line.get(f"used_of_class_{number}") or 0.0 for line in lines) for number in range(classes)]
    return counts if sum(counts) else []


def _one_class(run: Run) -> Symptom | None:
    counts = _counts(run)
    most = max(counts, default=0.0)
    if not counts or most < ONE_CLASS * sum(counts) or most * len(counts) < FAIR_SHARES / 2 * sum(counts):
        return None
    share = 100 * most / sum(counts)
    return Symptom(
        "One class takes the pseudo-labels",
        f"{share:.0f} % of those used at the end are of {_named(run, counts.index(most))}; a fair share of {len(counts)} classes is "
        f"{100 / len(counts):.0f} %.",
        "The model has collapsed onto a class, and its own labels confirm it; or the unlabelled images really are mostly of this "
        "class. figures/pseudo_labels_by_class.png shows when it began.",
        "--weighting freematch or flexmatch, which hold classes even; a higher --threshold; a smaller --learning-rate. If the "
        "images really are of this class, nothing is wrong.",
    )


def _forgotten_classes(run: Run) -> Symptom | None:
    counts = _counts(run)
    none = [number for number, count in enumerate(counts) if count == 0]
    # With fewer than twenty a class, none of one is chance.
    if not none or sum(counts) < 20 * len(counts):
        return None
    named = ", ".join(_named(run, number) for number in none[:5]) + (" and more" if len(none) > 5 else "")
    return Symptom(
        "Some classes get no pseudo-label",
        f"Of the {sum(counts):,.0f} used at the end none is of {named} ({len(none)} of {len(counts)} classes).",
        "The model is never sure of them: their labelled images do not stand for them, they look like another class, or the unlabelled "
        "images hold none.",
        "Other or more labelled images of these classes; --weighting flexmatch, which lowers the threshold for hard classes.",
    )


def _falling_pseudo_labels(run: Run) -> Symptom | None:
    values = run.values("pseudo_label_accuracy")
    course = ends(values)
    if course is None:
        return None
    best = max(_fifths(values))
    if best - course[1] < FALL:
        return None
    return Symptom(
        "Pseudo-labels get worse",
        f"{course[1]:.1f} % of those used are right at the end, {best:.1f} % in the best fifth of the run.",
        "The model teaches itself its own mistakes (confirmation): wrong labels entered when it became sure. A small fall is usual, as "
        "harder images pass the threshold.",
        "A higher --threshold, a smaller --unlabelled-weight, or stop earlier (--steps). If --grad-relu is off, leave it at cut: the "
        "classifier then never learns from them.",
    )


def _falling_accuracy(run: Run) -> Symptom | None:
    values = run.values("accuracy")
    if len(values) < 5:
        return None
    last, best = sum(values[-4:]) / 4, max(values)
    if best - last < FALL:
        return None
    return Symptom(
        "Test accuracy falls towards the end",
        f"{last:.1f} % in the mean of the last four evaluations, {best:.1f} % at best.",
        "Wrong pseudo-labels took over, or the learning rate stayed too high. The best of many evaluations of few images is also "
        "high by chance.",
        "See the symptoms of the pseudo-labels; more test images (--test-share); a smaller --learning-rate.",
    )


def _left_out(run: Run) -> Symptom | None:
    counts = run.values("steps_left_out")
    if not counts:
        return None
    return Symptom(
        "Steps were left out",
        f"{counts[-1]:.0f} of {run.done:,} steps had a loss or gradient that was not finite, and moved nothing.",
        "A learning rate that is too high, or half precision that overflows (--precision is "
        f"{run.options.get('precision')}).",
        "Lower --learning-rate, or compute in --precision bf16 or float32. --on-nonfinite stop names the first such step and its images.",
    )


def _fifths(values: list[float]) -> list[float]:
    """Means over five parts of a course, of at least eight values."""
    edges = [round(part * len(values) / 5) for part in range(6)]
    return [sum(values[start:stop]) / (stop - start) for start, stop in pairwise(edges)]


def _named(run: Run, number: int) -> str:
    """A class by its name where the run has written its model, else by its number."""
    config = run.file("model/config.json")
    names = config.get("class_names", []) if isinstance(config, dict) else []
    return f"class {names[number]!r}" if number < len(names) else f"class number {number} (from 0)"
