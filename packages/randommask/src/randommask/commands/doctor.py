"""`randommask doctor RUN`: what is wrong with a pretraining or a fine-tuning in its own numbers.

The loss of a pretraining is held against the floor of its width (`identities`), never against another width's.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from randommask.identities import UNIFORM_ENTROPY, loss_floor, masked_share
from randommask.methods import METHODS, Masking
from randommask.schedule import MaskSchedule
from scarce_common_utils.doctor import LEAST_LINES, DoctorConfig, Run, Symptom, ends, examine, is_number

# Of the way from knowing nothing (k ln 4) down to the floor that a loss still has before it, from which on a flat one counts as
# stuck. README's runs of 4,800 steps end with 24 % of it at width 6 and 38 % at width 14.
STUCK = 0.5
FLAT = 0.02  # share of the loss that it falls within a phase; below, nothing happens any more
# A share of masked tokens that differs by a tenth and four standard errors from its closed form: no chance, and no edge of a row.
SHARE_OFF, ERRORS = 0.1, 4.0
NO_SCORE = 0.05  # MCC or correlation that is no better than chance: README's weakest model has 0.25
OVERFIT = 1.1  # times its lowest value that the dev loss ends at
BELOW_REGRESSION = 0.02  # MCC; README's deviations over seeds begin at 0.011
LOOKED_AT = (
    "loss and its floor", "masked share and its closed form", "k-mer frequencies", "dev scores", "regressions", "repeated rows",
)  # fmt: skip


def doctor(config: DoctorConfig) -> dict[str, Any]:
    """Say what is wrong with a run in words: what was seen, the likely cause, what to try."""
    known = {"pretrain": pretraining_symptoms, "finetune": finetuning_symptoms}
    return examine(config, package="randommask", symptoms=known, looked_at=LOOKED_AT)


def pretraining_symptoms(run: Run) -> list[Symptom]:
    """What the numbers of a run of `randommask pretrain` show."""
    found = [_above_floor(run), _no_better_than_frequencies(run), _share_off(run)]
    return [symptom for symptom in found if symptom is not None]


def finetuning_symptoms(run: Run) -> list[Symptom]:
    """What the numbers of a run of `randommask finetune` show."""
    found = [_nothing_learnt(run), _overfit(run), _below_regression(run), _repeated(run)]
    return [symptom for symptom in found if symptom is not None]


def _above_floor(run: Run) -> Symptom | None:
    lines = _last_phase(run)
    course = ends([line["loss"] for line in lines])
    if course is None:
        return None
    k, width = run.options["k"], int(lines[-1]["mask_width"])
    floor, nothing = _floor(run, width), k * UNIFORM_ENTROPY
    first, last = course
    if last - floor <= STUCK * (nothing - floor) or last < first * (1 - FLAT):
        return None
    usual = run.options.get("start") == "usual"
    return Symptom(
        "The loss is far above its floor, and flat",
        f"At width {width} it is {last:.2f} nats a masked token (at the phase's begin {first:.2f}); its floor is {floor:.2f}, and "
        f"knowing nothing costs {nothing:.2f}.",
        "The model has learnt k-mer frequencies and no overlap yet: the usual start stays there for thousands of steps at a small "
        "size. Or the learning rate is too low, or so high that it fell back."
        if usual
        else "The run is too short for its width, or the learning rate is too low, or so high that it fell back.",
        "More --steps; another --learning-rate; narrow masks first (--widths)"
        + ("; --start structured, which begins with k-mers as sums of their bases." if usual else "."),
    )


def _last_phase(run: Run) -> list[dict[str, Any]]:
    """Lines at the last width, without the first, which may count steps of two phases."""
    lines = [line for line in run.lines if is_number(line.get("loss")) and is_number(line.get("mask_width"))]
    if not lines:
        return []
    at_width = [line for line in lines if line["mask_width"] == lines[-1]["mask_width"]]
    return at_width if len(at_width) == len(lines) else at_width[1:]


def _no_better_than_frequencies(run: Run) -> Symptom | None:
    numbers = run.result.get("numbers", {})
    for name in numbers:
        width = name.removeprefix("loss_width_")
        loss, ceiling = run.number(name), run.number(f"ceiling_width_{width}")
        if width != name and loss is not None and ceiling is not None and loss >= ceiling:
            return Symptom(
                "No better than k-mer frequencies",
                f"On held-out DNA the loss at width {width} is {loss:.2f} nats a masked token; frequencies of the training k-mers "
                f"alone give {ceiling:.2f}.",
                "The model has not used a mask's neighbours yet: too few steps, or a learning rate that does not fit. Held-out DNA of "
                "another kind than the training DNA does this too.",
                "More --steps, --start structured; compare figures/loss.png with its floor.",
            )
    return None


def _share_off(run: Run) -> Symptom | None:
    """The widths one by one; the first whose share is off."""
    lines = [line for line in run.lines if is_number(line.get("masked_share")) and is_number(line.get("mask_width"))]
    inner = [
        line
        for before, line in pairwise(lines)
        if line["mask_width"] == before["mask_width"]  # else it may count steps of two phases
    ]
    for width in sorted({int(line["mask_width"]) for line in inner}):
        shares = [line["masked_share"] for line in inner if line["mask_width"] == width]
        if len(shares) < LEAST_LINES:
            continue
        mean = sum(shares) / len(shares)
        deviation = math.sqrt(sum((share - mean) ** 2 for share in shares) / (len(shares) - 1))
        expected = _expected_share(run, width)
        if abs(mean - expected) > max(SHARE_OFF * expected, ERRORS * deviation / math.sqrt(len(shares))):
            return Symptom(
                "The share of masked tokens is off its closed form",
                f"At width {width} {100 * mean:.1f} % of the tokens were masked, and {100 * expected:.1f} % are expected.",
                "Windows are shorter than --tokens says (short records, much N: a row's ends are masked less), or the masks were not "
                "those of this method's options.",
                "Look at the DNA with `randommask check`; longer records, or fewer --tokens. Compare runs at the same share alone.",
            )
    return None


def _masking(run: Run) -> Masking:
    options = run.options
    schedule = MaskSchedule(
        k=options["k"],
        widths=_integers(options.get("widths")),
        milestones=_integers(options.get("milestones")),
        total_steps=options["steps"],
    )
    masking = METHODS[options["method"]](schedule)
    given = options.get("probability")
    return masking if given is None else masking._replace(probability=given)


def _probability(masking: Masking, width: int) -> float:
    if masking.share is not None:
        return min(1.0, masking.share / width)
    assert masking.probability is not None
    return masking.probability


def _floor(run: Run, width: int) -> float:
    """Nats that a perfect model pays at a width; 0 where no closed form says it: narrow masks, and widths that are drawn."""
    k = run.options["k"]
    overlap = run.options.get("overlap") is not False
    if overlap and (width < k - 1 or run.options["method"] == "uniform"):
        return 0.0
    return loss_floor(width, _probability(_masking(run), width), k=k, overlap=overlap)


def _expected_share(run: Run, width: int) -> float:
    """Masked share in closed form over windows as long as the recipe makes them, where no record is shorter."""
    masking, options = _masking(run), run.options
    drawn: int | Sequence[int] = width
    if isinstance(masking.schedule, MaskSchedule) and masking.schedule.uniform:
        assert masking.schedule.widths is not None
        drawn = range(masking.schedule.widths[0], width + 1)
    tokens, k = options["tokens"], options["k"]
    lengths = [tokens]
    if options["windows"] == "dnabert":  # half of them full, half of a length drawn evenly; ten stand for these
        overlap = options.get("overlap") is not False
        full = tokens + k - 1 if overlap else tokens * k
        drawn_bases = [max(int((number + 0.5) / 10 * full), k) for number in range(10)]
        drawn_lengths = [bases - k + 1 if overlap else bases // k for bases in drawn_bases]
        lengths = [*drawn_lengths, *[tokens] * 10]
    chance = _probability(masking, width)
    shares = {length: masked_share(drawn, chance, tokens=length) for length in set(lengths)}
    return sum(length * shares[length] for length in lengths) / sum(lengths)


def _integers(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(int(part) for part in text.split(","))


def _scores(run: Run) -> tuple[str, list[float]]:
    name = "dev_mcc" if run.values("dev_mcc") else "dev_pearson"
    return {"dev_mcc": "MCC", "dev_pearson": "Pearson's r"}[name], run.values(name)


def _nothing_learnt(run: Run) -> Symptom | None:
    called, scores = _scores(run)
    if not scores or max(scores) >= NO_SCORE:
        return None
    return Symptom(
        "The model is no better than chance",
        f"{called} on the dev rows is {max(scores):.3f} at best (evaluations: {len(scores)}); 0 is chance.",
        "Too few steps, a learning rate that does not fit the model's size, labels that the sequences do not decide, or a wrong "
        "--label-column.",
        "More --epochs; another --learning-rate; `randommask check` on the table; the regressions that the run printed say what is "
        "there to be learnt.",
    )


def _overfit(run: Run) -> Symptom | None:
    losses = run.values("dev_loss")
    if len(losses) < 3:
        return None
    best = losses.index(min(losses))
    if best >= len(losses) - 1 or losses[-1] < OVERFIT * losses[best]:
        return None
    return Symptom(
        "The dev loss rises",
        f"It is {losses[-1]:.3g} at the end and was {losses[best]:.3g} at evaluation {best + 1} of {len(losses)}.",
        "The model learns the training rows by heart. The dev score may still rise: a loss asks for confidence too.",
        "The kept model is that of the lowest dev loss; both scores are printed. Fewer --epochs, more --dropout, more rows.",
    )


def _below_regression(run: Run) -> Symptom | None:
    numbers = run.result.get("numbers", {})
    floors = {name: value for name, value in numbers.items() if name.endswith("_regression") and is_number(value)}
    metric = "mcc" if "mcc_last" in numbers else "pearson"
    own = [value for value in (run.number(f"{metric}_last"), run.number(f"{metric}_chosen")) if value is not None]
    if not floors or not own:
        return None
    name = max(floors, key=lambda one: floors[one])
    if max(own) >= floors[name] - BELOW_REGRESSION:
        return None
    kind = "the letters by place" if "positional" in name else "k-mer counts"
    return Symptom(
        "A regression is better",
        f"The model has {max(own):.3f} on the test rows, a regression on {kind} {floors[name]:.3f}.",
        "The task is easy for counts or fixed places, the rows are few, or the model is trained too little.",
        "Use the regression, or more --epochs, --start structured from scratch, or a model pretrained longer.",
    )


def _repeated(run: Run) -> Symptom | None:
    repeated, rows = run.number("test_rows_also_in_train"), run.number("test_rows")
    if not repeated or not rows:
        return None
    return Symptom(
        "Test rows stand in the training rows too",
        f"{repeated:.0f} of {rows:.0f} test rows have a sequence that the model was trained on.",
        "The files were divided by row and not by sequence.",
        "Read the score without repeats, which is printed beside the other; or give one file, which is divided by sequence.",
    )
