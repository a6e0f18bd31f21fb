"""Paired intervals against their definition, worked by hand; what is missing; reading back."""

import math

import pytest

from scarce_common_utils.errors import UserError
from scarce_common_utils.records import (
    Record,
    difference_text,
    missing_records,
    paired_difference,
    read_record,
    read_records,
    record_path,
    student_t_975,
    summary,
    write_record,
)


def record(arm: str, seed: int, accuracy: float | None) -> Record:
    return Record(experiment="digits", arm=arm, seed=seed, numbers={"accuracy": accuracy})


def test_paired_difference_by_hand():
    ours, theirs = [90.0, 92.0, 91.0], [89.0, 90.0, 90.5]
    records = [record("a", seed, value) for seed, value in enumerate(ours)] + [
        record("b", seed, value) for seed, value in enumerate(theirs)
    ]
    records.append(record("a", 9, 50.0))  # has no partner
    difference = paired_difference(records, arm="a", baseline="b", number="accuracy")
    deviation = math.sqrt(((1 - 3.5 / 3) ** 2 + (2 - 3.5 / 3) ** 2 + (0.5 - 3.5 / 3) ** 2) / 2)
    assert difference.seeds == (0, 1, 2)
    assert difference.mean == pytest.approx(3.5 / 3, abs=1e-12)
    assert difference.half_width == pytest.approx(4.303 * deviation / math.sqrt(3), abs=1e-12)


def test_one_seed_claims_nothing():
    difference = paired_difference([record("a", 0, 2.0), record("b", 0, 1.0)], arm="a", baseline="b", number="accuracy")
    assert difference.half_width is None
    assert "no claim" in difference_text(difference)
    with pytest.raises(ValueError, match="share no seed"):
        paired_difference([record("a", 0, 2.0), record("b", 1, 1.0)], arm="a", baseline="b", number="accuracy")


def test_student_t_covers_as_it_says():
    """The quantile against the distribution function, integrated numerically."""

    def upper_tail(limit: float, degrees: int) -> float:
        steps = 4_000
        constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
        # t = √n tan φ turns the tail into a finite integral of cos(φ)^(n - 1)
        begin = math.atan(limit / math.sqrt(degrees))
        width = (math.pi / 2 - begin) / steps
        return (
            constant * width * sum(math.cos(begin + (index + 0.5) * width) ** (degrees - 1) for index in range(steps))
        )

    for degrees in range(1, 31):  # the table has three decimals
        assert upper_tail(student_t_975(degrees), degrees) == pytest.approx(0.025, abs=4e-5)
    for degrees in (31, 45, 80, 500):  # between the rows: never too narrow
        assert upper_tail(student_t_975(degrees), degrees) <= 0.02502
    with pytest.raises(ValueError, match="not 0"):
        student_t_975(0)


def test_summary_and_missing():
    records = [record("a", 0, 1.0), record("a", 1, 3.0), record("b", 0, None)]
    assert summary(records, arm="a", number="accuracy") == (2.0, pytest.approx(math.sqrt(2)), 2)
    with pytest.raises(ValueError, match="'b'"):
        summary(records, arm="b", number="accuracy")
    assert missing_records(records, arms=("a", "b"), seeds=(0, 1)) == [("b", 1)]


def test_files(tmp_path):
    first = record("a", 3, 1.0)
    path = write_record(record_path(tmp_path, first), first)
    assert path == tmp_path / "digits" / "a" / "seed-003.json"
    assert read_records(tmp_path) == [first]
    path.write_text("{")
    with pytest.raises(UserError, match=r"seed-003\.json"):
        read_record(path)
    with pytest.raises(ValueError, match=r"\.\./x"):
        record("../x", 0, 1.0)
