"""Numbers and table of what corrects a trained model."""

from imwa.training.corrections import comparison, numbers_of, record_numbers, record_units
from imwa.training.evaluation import Evaluation

COUNTS = [200, 50, 10]
PLAIN = Evaluation(50.0, (90.0, 60.0, 0.0))
BETTER = Evaluation(60.0, (80.0, 60.0, None))


def test_numbers_are_means_over_classes_and_groups():
    found = numbers_of(PLAIN, COUNTS)
    assert found["accuracy"] == found["class_accuracy"] == 50.0
    assert (found["many"], found["medium"], found["few"]) == (90.0, 60.0, 0.0)
    assert (found["head"], found["middle"], found["tail"]) == (90.0, 60.0, 0.0)
    without = numbers_of(BETTER, COUNTS)
    assert without["class_accuracy"] == 70.0  # a class without test images has no part in it
    assert without["few"] is None
    assert numbers_of(Evaluation(50.0, (50.0, 50.0)), [30, 30])["many"] is None


def test_a_record_holds_what_was_made_and_its_units():
    numbers = record_numbers({"adjusted": BETTER}, COUNTS)
    assert numbers["adjusted_accuracy"] == 60.0
    assert numbers["adjusted_many"] == 80.0
    assert set(record_units({"adjusted": BETTER})) == set(numbers)
    assert record_numbers({}, COUNTS) == {}


def test_the_table_has_a_row_a_way_and_says_none():
    rows = comparison(
        PLAIN, {"adjusted": BETTER, "retrained": PLAIN}, counts=COUNTS,
        labels={"adjusted": "adjusted, tau 1", "retrained": "cRT, 60 steps"},
    ).splitlines()  # fmt: skip
    assert rows[0].split() == [
        "predictions",
        "accuracy",
        "%",
        "mean",
        "of",
        "classes",
        "%",
        "head",
        "%",
        "middle",
        "%",
        "tail",
        "%",
    ]
    assert rows[2].split() == ["plain", "50.00", "50.00", "90.00", "60.00", "0.00"]
    assert rows[3].endswith("none")
    assert rows[4].startswith("cRT, 60 steps")
    assert max(map(len, rows)) <= 80
    many = comparison(PLAIN, {}, counts=[50, 50, 50], labels={}).splitlines()
    assert "many %" in many[0]
