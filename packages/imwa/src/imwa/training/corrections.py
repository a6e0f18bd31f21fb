"""What can be done for rare classes once a model is trained: its logits adjusted, or its classifier re-trained; the numbers of both.

    adjusted      argmax z - tau log pi of a model trained with cross-entropy        `long_tail/logit_adjustment.py`
    re-trained    the classifier anew on classes in equal shares, all else frozen    `long_tail/retraining.py`

Both are the field's, applied once to the final average; they stand beside the plain model's numbers, never in their place.
Letters   K classes.
"""

from collections.abc import Mapping, Sequence

from imwa.training.evaluation import Evaluation, thirds_by_rank
from imwa.training.report import GROUPS, numbers_of
from scarce_common_utils.figures import table

NAMES = ("adjusted", "retrained")
OVERALL = ("accuracy", "class_accuracy")


def record_numbers(corrected: Mapping[str, Evaluation], counts: Sequence[int]) -> dict[str, float | None]:
    """For a record: `adjusted_accuracy` and so on, of those that were made."""
    return {
        f"{name}_{number}": value
        for name, evaluation in corrected.items()
        for number, value in numbers_of(evaluation, counts).items()
    }


def record_units(corrected: Mapping[str, Evaluation]) -> dict[str, str]:
    """Unit of each of `record_numbers`."""
    return {f"{name}_{number}": "%" for name in corrected for number in (*OVERALL, *GROUPS)}


def comparison(
    plain: Evaluation, corrected: Mapping[str, Evaluation], *, counts: Sequence[int], labels: Mapping[str, str]
) -> str:
    """A table with a row a way of predicting, 80 columns.

    Args:
        plain: the final model's.
        corrected: of those of NAMES that were made.
        counts: training images of each class, K integers.
        labels: name -> what its row is called.
    """
    thirds = thirds_by_rank(counts)
    shown = tuple(thirds) if thirds else ("many", "medium", "few")
    rows = []
    for label, evaluation in {"plain": plain, **{labels[name]: found for name, found in corrected.items()}}.items():
        numbers = numbers_of(evaluation, counts)
        cells = [numbers[name] for name in (*OVERALL, *shown)]
        rows.append([label, *("none" if cell is None else f"{cell:.2f}" for cell in cells)])
    return table(["predictions", "accuracy %", "mean of classes %", *(f"{name} %" for name in shown)], rows)
