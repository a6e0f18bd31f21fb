"""The full recipe, for GPUs: BERT-base on the human genome for 480,000 steps by each masking, then the 28 tasks of GUE.

Known: 6-mers, the human genome, "identical settings" for all models. Published by DNABERT and taken over: BERT base, the
usual start, AdamW with betas 0.9 and 0.98, weight decay 0.01, learning rate 4e-4 after 10,000 steps of warm-up, 2,000 windows a step, its
window recipe. By DNABERT-2: the fine-tuning of each task. OURS: the schedule's widths and milestones, 480,000 steps with the decay ending
there, attention dropout 0, chr22 held out, three pretraining seeds. No settings of RandomMask's own tables are known.
"""

from randommask.data.gue import TASKS
from reproduce.protocol import Experiment

PRETRAINED = ("dnabert", "randommask", "constant", "constant_share")
STEPS = 480_000
GENOME = "{data}/genomes/hg38.fa.gz"
RECORDS = ",".join(f"chr{name}" for name in (*range(1, 23), "X", "Y"))
_OPTIMIZER = ("--learning-rate", "4e-4", "--warm-up", "0.0208333")
_BASE = ("--size", "base", "--start", "usual", "--windows", "dnabert", "--tokens", "510", *_OPTIMIZER)
_LARGE = (
    "--batch-size",
    "125",
    "--accumulation",
    "16",
    "--precision",
    "bf16",
    "--workers",
    "8",
    "--checkpoint-every",
    "5000",
)
_SMALL = ("--batch-size", "1", "--accumulation", "2", "--evaluation-windows", "4", "--checkpoint-every", "1000")
PRETRAIN = (GENOME, "--records", RECORDS, "--held-out", "chr22", *_BASE, *_LARGE)
MADE = "made-genome-and-gue"
MADE_PRETRAIN = ("{prepared}/genome.fa", *_BASE, *_SMALL)
# One task of each family: a trial of all 28 would show no more.
TRIED = (
    "EMP/H3",
    "prom/prom_300_tata",
    "prom/prom_core_tata",
    "tf/0",
    "mouse/0",
    "splice/reconstructed",
    "virus/covid",
)
_NEEDS = "genomes/hg38.fa.gz (UCSC's, soft-masked) and gue/ with the 28 tasks in the folder of --data, and a GPU"


def experiments() -> tuple[Experiment, ...]:
    """The pretraining, and one experiment for each task; all share the pretrainings."""
    pretraining = Experiment(
        "human-base",
        PRETRAINED,
        (0, 1, 2),
        {"pretrain": PRETRAIN},
        {"pretrain": STEPS},
        f"BERT-base on the human genome, 2,000 windows a step, {STEPS:,} steps; reproduce/randommask/paper.py marks what is ours. "
        f"Needs {_NEEDS}.",
        commands=("pretrain", "look"),
        numbers=("loss_width_6", "loss_width_14", "masked_share_training", "hidden_bases_training"),
    )
    trial = pretraining._replace(
        name="human-base-made-inputs",
        seeds=(0,),
        words={"pretrain": MADE_PRETRAIN},
        note="Made letters, 2 x 1 windows a step: whether the commands run, nothing else.",
        prepared=MADE,
    )
    return (pretraining._replace(trial=trial), *(_task(name) for name in TASKS))


def _task(name: str) -> Experiment:
    metric = "macro F1" if TASKS[name].metric == "f1" else "MCC"
    arms = ("scratch_base", *PRETRAINED)
    shared = {"commands": ("pretrain", "gue-task"), "numbers": ("score_last", "score", "score_deduplicated")}
    real = Experiment(
        f"human-base-{name.replace('/', '-')}",
        arms,
        (0, 1, 2),
        {"pretrain": PRETRAIN, "gue-task": ("--task", name, "--data", "{data}/gue")},
        {"pretrain": STEPS},
        f"GUE {name}, {metric}, published recipe, checkpoint of the lowest dev loss.",
        **shared,
    )
    trial = Experiment(
        f"{real.name}-made-inputs",
        ("scratch_base", "randommask") if name == TRIED[0] else ("randommask",),
        (0,),
        {"pretrain": MADE_PRETRAIN, "gue-task": ("--task", name, "--data", "{prepared}/gue", "--batch-size", "2")},
        {"pretrain": STEPS, "gue-task": 1000},
        f"Made letters in {name}'s shape: whether the commands run, nothing else.",
        prepared=MADE,
        **shared,
    )
    return real._replace(trial=trial if name in TRIED else None)


PAPER = experiments()
