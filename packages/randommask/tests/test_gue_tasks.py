import gzip

import pytest
import torch

from randommask.data.gue import TASKS, choose_tasks, read_task
from randommask.data.gue_baselines import MODELS, published_scores
from randommask.training.classification import macro_f1
from randommask.training.gue_report import gue_rows, gue_text
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import Record

HEADER = "sequence,label\n"


def write(folder, task, **stems):
    (folder / task).mkdir(parents=True)
    for stem, rows in stems.items():
        text = HEADER + "".join(f"{sequence},{label}\n" for sequence, label in rows)
        (folder / task / f"{stem}.csv.gz").write_bytes(gzip.compress(text.encode()))


TRAIN = [("ACGTA", 0), ("ACGTC", 1), ("ACGTT", 0)]
DEV = [("CCCCA", 0), ("CCCCT", 1), ("CCCCG", 1), ("CCCGG", 0), ("CCCAA", 1), ("CCCTT", 0)]
TEST = [("ACGTC", 0), ("GGGGA", 1), ("CCCCA", 0), ("GGGGA", 1), ("GGGGC", 0)]


def test_the_28_tasks_and_their_published_recipes():
    assert len(TASKS) == 28
    assert set(TASKS) == set(published_scores())
    assert TASKS["EMP/H3"][1:4] == (3, None, 50)
    assert TASKS["prom/prom_300_all"][1:5] == (4, None, 50, 400)
    assert TASKS["prom/prom_core_tata"][1:5] == (10, None, 50, 200)
    assert TASKS["tf/4"][1:4] == (3, None, 30)
    assert TASKS["mouse/3"].steps == 1000
    assert TASKS["splice/reconstructed"].epochs == 5
    assert TASKS["virus/covid"].metric == "f1"


def test_published_means_are_those_of_the_paper():
    scores = published_scores()
    means = {model: sum(row[model] for row in scores.values()) / 28 for model in MODELS}
    expected = (61.62, 61.14, 60.05, 60.51, 55.43, 57.79, 61.41, 66.93, 66.81, 67.78)  # as printed there
    for model, mean in zip(MODELS, expected, strict=True):
        assert means[model] == pytest.approx(mean, abs=0.6), model


def test_repeats_across_the_files_are_left_out_of_the_second_score(tmp_path):
    write(tmp_path, "tf/0", train=TRAIN, dev=DEV, test=TEST)
    found = read_task(tmp_path, "tf/0")
    assert found.data.fresh == [1, 4]
    assert (found.reduced, found.title, found.data.names) == (False, "tf/0", ["0", "1"])
    assert found.data.split["repeated"] == {
        "dev rows also in train": 0,
        "test rows also in train": 1,
        "test rows also in dev": 1,
    }


def test_a_task_without_a_train_file_runs_only_when_asked(tmp_path):
    write(tmp_path, "tf/0", train=TRAIN, dev=DEV, test=TEST)
    write(tmp_path, "EMP/H3", dev=DEV, test=TEST)
    assert choose_tasks(tmp_path) == (["tf/0"], ["EMP/H3"])
    assert choose_tasks(tmp_path, reduced=True) == (["EMP/H3", "tf/0"], [])
    with pytest.raises(UserError, match=r"EMP/H3 has no train file in .* With --reduced"):
        choose_tasks(tmp_path, ["H3"])
    found = read_task(tmp_path, "EMP/H3")
    assert found.title == "EMP/H3 (reduced)"
    assert sorted(found.data.train.sequences + found.data.dev.sequences) == sorted(row[0] for row in DEV)
    assert found.data.test.sequences == [row[0] for row in TEST]


def test_what_cannot_be_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="which is no folder"):
        choose_tasks(tmp_path / "none")
    with pytest.raises(UserError, match="which holds no task"):
        choose_tasks(tmp_path)
    write(tmp_path, "EMP/H3", dev=DEV, test=TEST)
    with pytest.raises(UserError, match="where no task has a train file"):
        choose_tasks(tmp_path)
    with pytest.raises(UserError, match=r"'prom_core_tat', which is no task of GUE; did you mean 'prom_core_tata'\?"):
        choose_tasks(tmp_path, ["prom_core_tat"])
    with pytest.raises(UserError, match="The task tf/0 has no dev file"):
        choose_tasks(tmp_path, ["tf/0"])


def test_macro_f1_by_loops():
    confusion = torch.tensor([[3, 1, 0], [2, 2, 2], [0, 0, 0]])
    expected = []
    for one in range(3):
        right = confusion[one, one].item()
        found, true = confusion[:, one].sum().item(), confusion[one].sum().item()
        expected.append(2 * right / (found + true) if found + true else 0.0)
    assert macro_f1(confusion) == pytest.approx(sum(expected) / 3)


def test_the_table_sets_published_scores_beside_whole_tasks_alone():
    def record(task, arm, seed, score):
        numbers = {"score": score, "score_deduplicated": score - 0.1, "test_rows_repeated": 3, "test_rows": 50}
        return Record(experiment=f"gue-{task}", arm=arm, seed=seed, numbers=numbers)

    records = [
        *(record("tf-0", "scratch", seed, 0.5 + 0.02 * seed) for seed in range(3)),
        record("tf-0", "kmer-regression", 0, 0.4),
        record("EMP-H3", "scratch", 0, 0.3),
    ]
    titles = {"tf/0": "tf/0", "EMP/H3": "EMP/H3 (reduced)"}
    _, rows = gue_rows(records, titles, arm="scratch", models=("D6", "DB2"))
    assert rows[0] == ["tf/0", "52.00 ± 2.00 (3)", "42.00", "3 of 50", "40.00", "66.84", "71.99"]
    assert rows[1] == ["EMP/H3 (reduced)", "30.00 (1)", "20.00", "3 of 50", "-", "-", "-"]
    text = gue_text(records, titles, arm="scratch")
    assert "compare with nothing published" in text
    assert "68.16 (v3), under other settings" in text
