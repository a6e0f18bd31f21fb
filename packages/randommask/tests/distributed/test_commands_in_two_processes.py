"""The commands begun as two processes: one global batch, one run folder, one that speaks, resumed with the same bits.

One pair of processes runs all of them, one after the other: most of the time is its start.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from randommask import MaskSchedule
from randommask.commands import main
from randommask.training.processes import share_of_batch
from randommask.training.trainer import RandomMaskTrainer
from scarce_common_utils.errors import UserError

# The group meets at a file, so that no port can be taken; the process leaves without the interpreter's end, where threads of
# a group may still be at work. `cut` is what a run leaves that was killed behind its last checkpoint but one.
CHILD = """
import json, os, shutil, sys, torch
from pathlib import Path
torch.set_num_threads(1)
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
from randommask.commands import main
from randommask.training.trainer import RandomMaskTrainer
seen, learn = [], RandomMaskTrainer.compute_loss
def watched(self, model, inputs, *others, **words):
    seen.append([int(inputs["mask_width"]), inputs["input_ids"].tolist(), inputs["labels"].tolist()])
    return learn(self, model, inputs, *others, **words)
RandomMaskTrainer.compute_loss = watched
codes = []
for name, words in json.loads(sys.argv[2]):
    if "--resume" in words:
        whole, cut = folder / name.replace("cut", "whole"), folder / name
        if rank == 0:
            shutil.copytree(whole, cut)
            shutil.rmtree(cut / "model")
            shutil.rmtree(sorted((cut / "checkpoints").glob("step-*"))[-1])
            (cut / "result.json").unlink()
        torch.distributed.monitored_barrier()
    else:
        words = [*words, "--out", str(folder / name)]
    seen.clear()
    try:
        codes.append(main(words))
    except SystemExit as end:
        codes.append(end.code)
    written = any((folder / name / end).exists() for end in ("result.json", "table.md", "comparison.json"))
    (folder / f"{name}-{rank}.json").write_text(json.dumps({"seen": seen, "written": written}))
print("codes", codes)
sys.stdout.flush(); sys.stderr.flush()
torch.distributed.monitored_barrier()
os._exit(0)
"""
STEPS = 6
PRETRAIN = [
    *("--steps", str(STEPS), "--tokens", "24", "--k", "3", "--batch-size", "4", "--accumulation", "2"),
    *("--dropout", "0.1", "--checkpoint-every", "4", "--evaluation-windows", "8"),
]
FINETUNE = ["--k", "3", "--batch-size", "4", "--epochs", "3", "--dropout", "0", "--no-regressions"]
GUE = [
    *("--steps", "4", "--k", "3", "--batch-size", "4", "--dropout", "0", "--learning-rate", "1e-3", "--seeds", "1"),
    "--no-regressions",
]

OVERLAP = ["--k", "3", "--steps", "2", "--batch-size", "4", "--dropout", "0", "--seeds", "1", "--no-equal-tokens"]

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed"),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folder in which both ran, command lines by name, and what each process printed and complained of."""
    folder = tmp_path_factory.mktemp("pair")
    generator = torch.Generator().manual_seed(0)

    def dna(length):
        return "".join("ACGT"[code] for code in torch.randint(4, (length,), generator=generator).tolist())

    (folder / "g.fa").write_text("".join(f">r{i}\n{dna(400)}\n" for i in range(12)))
    task = folder / "GUE" / "mouse" / "2"
    task.mkdir(parents=True)
    for stem in ("train", "dev", "test"):
        (task / f"{stem}.csv").write_text("sequence,label\n" + "".join(f"{dna(12)},{row % 2}\n" for row in range(16)))
    lines = {
        "pretrain-whole": ["pretrain", str(folder / "g.fa"), *PRETRAIN, "--cache", str(folder / "cache")],
        "pretrain-cut": ["pretrain", "--resume", str(folder / "pretrain-cut")],
        "finetune-whole": [
            *("finetune", str(task / "train.csv"), "--dev", str(task / "dev.csv"), "--test", str(task / "test.csv")),
            *FINETUNE,
        ],
        "finetune-cut": ["finetune", "--resume", str(folder / "finetune-cut")],
        "gue-whole": ["gue", "--data", str(folder / "GUE"), *GUE],
        "overlap-whole": ["overlap", str(task / "train.csv"), *OVERLAP],
    }
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), json.dumps(list(lines.items()))],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [child.communicate(timeout=840) for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    return folder, lines, told


def numbers(folder):
    return json.loads((folder / "result.json").read_text())["numbers"]


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def seen(folder, name):
    """What the model met in each of the two processes."""
    return [json.loads((folder / f"{name}-{rank}.json").read_text())["seen"] for rank in range(2)]


def rows_of(ids, labels):
    """The rows as they were before masking, without padding."""
    return [
        [shown if label == -100 else label for shown, label in zip(*row, strict=True) if shown]
        for row in zip(ids, labels, strict=True)
    ]


def test_one_process_speaks_and_all_end_well(pair):
    folder, lines, told = pair
    assert told[1][0].splitlines() == [f"codes {[0] * len(lines)}"]
    # torch's C++ may warn there that process 0, which holds the store, was the first to leave
    assert not [line for line in told[1][1].splitlines() if line.startswith("randommask")]
    assert told[0][0].splitlines()[-1] == f"codes {[0] * len(lines)}"
    for word in ("pretrain-whole", "pretrain-cut", "finetune-whole", "finetune-cut", "mouse/2"):
        assert word in told[0][0]
    # the other one waited until the first had written all
    assert all(json.loads((folder / f"{name}-1.json").read_text())["written"] for name in lines)


def test_pretraining_shares_each_batch_at_the_width_of_its_step(pair, tmp_path, monkeypatch):
    folder, lines, _ = pair
    alone, learn = [], RandomMaskTrainer.compute_loss

    def watched(self, model, inputs, *others, **words):
        alone.extend(rows_of(inputs["input_ids"].tolist(), inputs["labels"].tolist()))
        return learn(self, model, inputs, *others, **words)

    monkeypatch.setattr(RandomMaskTrainer, "compute_loss", watched)
    assert main([*lines["pretrain-whole"], "--out", str(tmp_path / "one")]) == 0
    schedule = MaskSchedule(k=3, total_steps=STEPS)
    widths = [schedule.width(step) for step in range(STEPS)]
    both = seen(folder, "pretrain-whole")
    for mine in both:
        assert [width for width, _, _ in mine] == [width for width in widths for _ in range(2)]
    dealt = [row for turn in zip(*both, strict=True) for _, ids, labels in turn for row in rows_of(ids, labels)]
    assert dealt == alone  # eight windows a step, two at a time to either process
    assert [line["mask_width"] for line in metrics(folder / "pretrain-whole")] == widths
    for step, line in enumerate(metrics(folder / "pretrain-whole")):
        turns = [turn for mine in both for turn in mine[2 * step : 2 * step + 2]]
        targets = [label for _, _, labels in turns for row in labels for label in row if label != -100]
        shown = [token for _, ids, _ in turns for row in ids for token in row if token > 3]
        assert line["masked_share"] == pytest.approx(len(targets) / len(shown))
    assert {line["step"] for line in metrics(folder / "pretrain-whole")} == set(range(STEPS))
    assert (folder / "pretrain-whole" / "figures" / "loss.png").is_file()
    assert [path.suffix for path in sorted((folder / "cache").iterdir())] == [".codes", ".json"]


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_resume_ends_with_the_same_bits(pair, command):
    folder, _, _ = pair
    whole, cut = folder / f"{command}-whole", folder / f"{command}-cut"
    first, second = weights(whole), weights(cut)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert numbers(whole) == numbers(cut)
    assert metrics(whole) == metrics(cut)
    if command == "pretrain":
        schedule = MaskSchedule(k=3, total_steps=STEPS)
        widths = [schedule.width(step) for step in (4, 5) for _ in range(2)]
        assert [[width for width, _, _ in mine] for mine in seen(folder, "pretrain-cut")] == [widths, widths]


def test_fine_tuning_is_that_of_one_process(pair, tmp_path):
    folder, lines, _ = pair
    assert main([*lines["finetune-whole"], "--out", str(tmp_path / "one")]) == 0
    two, one = folder / "finetune-whole", tmp_path / "one"
    assert numbers(two) == numbers(one)
    assert [line["dev_loss"] for line in metrics(two)] == pytest.approx(
        [line["dev_loss"] for line in metrics(one)], rel=1e-4
    )
    assert len(metrics(two)) == 3


def test_gue_is_that_of_one_process(pair, tmp_path):
    folder, lines, _ = pair
    assert main([*lines["gue-whole"], "--out", str(tmp_path / "one")]) == 0
    name = "records/gue-mouse-2/scratch/seed-000.json"
    two, one = (json.loads((at / name).read_text())["numbers"] for at in (folder / "gue-whole", tmp_path / "one"))
    assert two == one


def test_two_processes_compare_overlap_in_one_run_folder(pair):
    folder, _, told = pair
    out = folder / "overlap-whole"
    found = json.loads((out / "comparison.json").read_text())
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["figures", "runs"]
    for arm in ("overlapping", "side-by-side"):
        record = json.loads((out / "runs" / arm / "seed-000" / "result.json").read_text())
        assert record["numbers"]["mcc_last"] == found["arms"][arm]["mcc_last"]["mean"]
        assert told[0][1].count(f"randommask: {arm}, seed 0: mcc_last") == 1


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_another_number_of_processes_does_not_go_on(pair, tmp_path, capsys, command):
    folder, _, _ = pair
    shutil.copytree(folder / f"{command}-whole", tmp_path / "copy")
    before = (tmp_path / "copy" / "metrics.jsonl").read_bytes()
    assert main([command, "--resume", str(tmp_path / "copy")]) == 2
    assert "was made by 2 processes, and 1 was started, which would change the result." in capsys.readouterr().err
    assert (tmp_path / "copy" / "metrics.jsonl").read_bytes() == before


def test_a_batch_that_cannot_be_dealt_evenly_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert share_of_batch(32) == 16
    with pytest.raises(UserError, match="--batch-size is 33, which 2 processes cannot share evenly"):
        share_of_batch(33)
