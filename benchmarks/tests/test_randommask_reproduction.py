"""What randommask's reproduction makes of its data, of a run's log and of its records."""

import pytest

from randommask.data.tables import read_table
from randommask.identities import loss_floor, masked_share
from reproduce.protocol import Experiment
from reproduce.randommask import data, look, question
from scarce_common_utils.records import Record

OPTIONS = {"k": 6, "steps": 4800, "widths": None, "milestones": None, "probability": None}


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("splice")
    found = {}
    for name in ("splice", "splice-256"):
        data.PREPARED[name].make(None, 3, folder / name)
        found[name] = {side: read_table(folder / name / f"{side}.csv") for side in data.SIDES}
    return found


def test_splice_junctions_on_three_sides_share_no_sequence(sides):
    whole = {side: set(table.sequences) for side, table in sides["splice"].items()}
    counts = {side: len(table.labels) for side, table in sides["splice"].items()}
    assert sum(counts.values()) == 3190
    assert counts["dev"] == pytest.approx(319, abs=20)
    assert counts["test"] == pytest.approx(638, abs=20)
    assert not whole["train"] & whole["dev"] | whole["train"] & whole["test"] | whole["dev"] & whole["test"]


def test_few_labels_come_from_the_training_rows_and_leave_the_other_sides_alone(sides):
    whole, few = sides["splice"], sides["splice-256"]
    assert len(few["train"].labels) == 256
    pairs = list(zip(whole["train"].sequences, whole["train"].labels, strict=True))
    assert all(pair in pairs for pair in zip(few["train"].sequences, few["train"].labels, strict=True))
    assert set(few["train"].labels) == {"EI", "IE", "N"}
    assert few["dev"] == whole["dev"]
    assert few["test"] == whole["test"]


def test_made_inputs_hold_all_28_tasks_with_every_class_in_train(tmp_path):
    data.PREPARED["made-genome-and-gue"].make(None, 0, tmp_path / "made")
    files = sorted((tmp_path / "made" / "gue").rglob("train.csv"))
    assert len(files) == 28
    covid = read_table(tmp_path / "made/gue/virus/covid/train.csv")
    assert set(covid.labels) == set("012345678")
    assert {len(sequence) for sequence in covid.sequences} == {1000}
    assert (tmp_path / "made" / "genome.fa").read_text().count(">") == 3


def test_masked_share_and_hidden_bases_are_weighted_by_what_was_masked():
    lines = [{"masked_share": 0.1, "hidden_bases": 0.2}, {"masked_share": 0.3, "hidden_bases": 0.6}]
    numbers = look.realised(lines)
    assert numbers["masked_share_training"] == pytest.approx(20)
    assert numbers["hidden_bases_training"] == pytest.approx((0.02 + 0.18) / 0.4)


def test_closed_share_weighs_each_phase_by_its_steps():
    # the phases of 4,800 steps begin at 0, 300, 1,000, 2,000 and 3,000
    lengths = {6: 300, 8: 700, 10: 1000, 12: 1000, 14: 1800}
    expected = sum(steps * masked_share(width, 0.025, tokens=64) for width, steps in lengths.items()) / 4800
    masking = look.masking_of(OPTIONS | {"method": "randommask"})
    assert look.closed_share(masking, steps=4800, tokens=64) == pytest.approx(expected)
    fixed = look.masking_of(OPTIONS | {"method": "constant"})
    assert look.closed_share(fixed, steps=4800, tokens=64) == pytest.approx(masked_share(14, 0.025, tokens=64))
    share = look.masking_of(OPTIONS | {"method": "constant_share"})
    expected = sum(steps * masked_share(width, 0.15 / width, tokens=64) for width, steps in lengths.items()) / 4800
    assert look.closed_share(share, steps=4800, tokens=64) == pytest.approx(expected)


def test_staircase_takes_lines_wholly_on_either_side_of_a_boundary():
    # Lines of 48 steps: the one that ends with step 335 holds the boundary at 300 and belongs to neither side.
    lines = [
        {"step": end - 1, "loss": 4.0 if end <= 300 else 99.0 if end <= 336 else 5.0} for end in range(48, 961, 48)
    ]
    masking = look.masking_of(OPTIONS | {"method": "randommask"})
    numbers = look.staircase(lines, masking, k=6)
    assert numbers == {
        "jump_8": pytest.approx(1.0),
        "floor_jump_8": pytest.approx(loss_floor(8, 0.025, k=6) - loss_floor(6, 0.025, k=6)),
    }
    assert look.staircase(lines, look.masking_of(OPTIONS | {"method": "dnabert"}), k=6) == {}
    assert look.staircase(lines, look.masking_of(OPTIONS | {"method": "uniform"}), k=6) == {}


def _record(experiment, arm, seed, **numbers):
    return Record(experiment=experiment, arm=arm, seed=seed, numbers=numbers)


def test_the_question_turns_losses_round_and_marks_intervals_that_leave_out_zero():
    arms = ("dnabert", "randommask", "constant", "constant_share")
    alone = Experiment("yeast", arms, (0, 1, 2), {"pretrain": ("x",)}, {}, "", commands=("pretrain", "look"))
    tasks = [alone._replace(name=f"task-{letter}", commands=("pretrain", "finetune")) for letter in "ab"]
    records = []
    for seed in (0, 1, 2):
        for arm, loss in zip(arms, (5.0, 4.0 + 0.01 * seed, 6.0, 4.5), strict=True):
            records.append(_record("yeast", arm, seed, loss_width_14=loss, jump_8=0.5, floor_jump_8=0.9))
        for arm, mcc in zip(arms, (0.5, 0.6 + 0.3 * seed, 0.55, 0.6), strict=True):
            records.append(_record("task-a", arm, seed, mcc_last=mcc, loss_width_14=1.0))
            records.append(_record("task-b", arm, seed, mcc_last=mcc + 0.2, loss_width_14=1.0))
    text = question.closing([alone, *tasks], records)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    # order: 6.0 - (4.00, 4.01, 4.02), half-width 4.303 * 0.01 / sqrt(3)
    assert "+1.990 ± 0.025 *" in rows["yeast"]
    assert rows["yeast"].split()[-1] == "*"
    assert "-1.000" in rows["yeast"]  # wide: constant is worse than dnabert
    # order on each task: 0.05, 0.35, 0.65: no star
    assert "+0.350 ± 0.745" in rows["task-a"]
    assert "+0.350 ± 0.745" in rows["mean of 2 tasks"]
    assert "*" not in rows["mean of 2 tasks"].replace("+0.050 ± 0.000 *", "")
    assert "loss" not in rows["task-a"]
    assert "yeast, randommask: to 8 +0.50 (+0.90)" in text


def test_one_seed_answers_nothing():
    arms = ("dnabert", "randommask")
    alone = Experiment("yeast", arms, (0,), {}, {}, "", commands=("pretrain", "look"))
    assert question.closing([alone], [_record("yeast", arm, 0, loss_width_14=1.0) for arm in arms]) == ""
