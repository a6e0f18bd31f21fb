"""What randommask's reproduction makes of its data, of a run's log and of its records."""

import pytest

from randommask.data.tables import read_table
from randommask.identities import loss_floor, masked_share
from reproduce.protocol import Experiment
from reproduce.randommask import data, inside, look, question
from reproduce.runner import Reproduction
from scarce_common_utils.errors import UserError
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


def _looked_into(step, purity, entropies):
    """A checkpoint of observations.json with two layers of two heads."""
    other = {
        "top1": [[0.5, 0.7], [0.1, 0.3]],
        "cls": [[0.1, 0.1], [0.2, 0.2]],
        "sep": [[0.0, 0.1], [0.3, 0.1]],
        "near": [[1, 0], [0, 0]],
    }
    return {
        "step": step,
        "neighbours": {"purity": purity, "shift_purity": 0.25, "distance": 3.0},
        "attention_by_layer_and_head": {"entropy": entropies, **other},
    }


def _observations(last_step):
    uniform = {"entropy": 1.0, "top1": 0.02, "cls": 0.02, "sep": 0.03, "near": 0.1}
    checkpoints = [
        _looked_into(0, 1.0, [[1.0, 1.0], [1.0, 1.0]]),
        _looked_into(last_step, 0.5, [[0.8, 0.6], [0.4, 0.2]]),
    ]
    chance = {"purity": 0.004, "shift_purity": 0.002, "distance": 4.5}
    levels = {"neighbours": chance, "uniform_attention": uniform}
    return {"run": {"method": "dnabert", "steps": 40}, "checkpoints": checkpoints, "levels": levels}


def test_a_look_inside_holds_end_start_and_level():
    numbers = inside.numbers_of(_observations(40))
    assert (numbers["purity"], numbers["purity_start"]) == (50.0, 100.0)
    assert numbers["purity_level"] == pytest.approx(0.4)
    assert numbers["shift_level"] == pytest.approx(0.2)
    assert numbers["entropy"] == pytest.approx(0.5)
    assert (numbers["entropy_start"], numbers["entropy_level"]) == (1.0, 1.0)
    assert [numbers[f"entropy_layer_{layer}"] for layer in (1, 2)] == pytest.approx([0.7, 0.3])
    assert [numbers[f"specials_layer_{layer}"] for layer in (1, 2)] == pytest.approx([0.15, 0.4])
    assert numbers["specials_level"] == pytest.approx(0.05)
    assert numbers["near"] == pytest.approx(0.25)


def test_a_run_without_its_last_weights_is_not_looked_into():
    with pytest.raises(UserError, match="those of step 36 of 40"):
        inside.numbers_of(_observations(36))


@pytest.mark.parametrize(
    ("scale", "looked", "own"), [("cpu", "yeast-inside", "yeast"), ("cpu-full", "human-inside", "human")]
)
def test_what_is_looked_into_are_the_runs_that_stand(tmp_path, scale, looked, own):
    reproduction = Reproduction("randommask", scale=scale, out=tmp_path, data=tmp_path)
    experiments = {one.name: one for one in reproduction.experiments}
    for arm in experiments[looked].arms:
        tasks = [reproduction._task(experiments[name], arm, 1) for name in (looked, own)]
        assert tasks[0].shared[0] == tasks[1].shared[0] is not None
        assert tasks[0].lines[0] == tasks[1].lines[0]
        assert [line[0] for line in tasks[0].lines] == ["pretrain", "inside"]


def test_the_question_counts_no_model_twice():
    arms = ("dnabert", "randommask")
    alone = Experiment("yeast", arms, (0, 1), {}, {}, "", commands=("pretrain", "look"))
    again = alone._replace(name="yeast-inside", commands=("pretrain", "inside"))
    records = [
        _record(name, arm, seed, loss_width_14=5.0 + seed * (arm == "dnabert"))
        for name in ("yeast", "yeast-inside")
        for arm in arms
        for seed in (0, 1)
    ]
    text = question.closing([alone, again], records)
    assert "yeast" in text
    assert "yeast-inside" not in text
