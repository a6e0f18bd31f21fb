"""Scales: how long, how large, how many seeds. All settings are ours; no settings of the paper are known to us.

The settings of `cpu` and `cpu-full` were fixed before any of their runs: model, start, window length and pretraining rate are those of
a first look on chromosome 22 and on human DNA; epochs too. The learning rate of fine-tuning, 1e-3, was chosen by dev MCC of the last
epoch, with a seed that is in no table (100), for scratch / `dnabert`: splice junctions 0.900 / 0.475 at 3e-4, 0.899 / 0.766 at 1e-3,
0.869 / 0.742 at 3e-3; prom_core_tata 0.813 at 1e-3 and 0.759 at 3e-3, from scratch.

What to keep in mind with every table: (a) `scratch` has the start of the pretrained arms, `scratch_usual` has not. (b) The last epoch
stands beside the one that dev loss chose, which often is an early one. (c) Pretraining saw windows of 69 bases; positions behind their
end stand at their start in every arm, which 101 bases and more reach. (d) Yeast holds no test sequence of the human and mouse tasks,
but 1,445 of the 1,497 of EMP/H3 (without labels); the human stretches hold 2 of 613 of prom_core_tata, 4 of 1,000 of tf/0, 11 of
3,005 splice junctions. (e) 16 of prom_core_tata's 613 test rows also stand in its training rows.
"""

from typing import NamedTuple

from reproduce.protocol import Experiment, Scale
from reproduce.randommask.paper import PAPER

STEPS = 4800  # a hundredth of the schedule's: its phases begin at steps 0, 300, 1,000, 2,000 and 3,000
SEEDS = (0, 1, 2)
_ARMS = ("scratch_usual", "scratch", "dnabert", "randommask")
CONTROLS = ("dnabert", "randommask", "constant", "constant_share")
CORE_ARMS = ("scratch_usual", "scratch", *CONTROLS)
LOOKED_AT = ("loss_width_6", "loss_width_14", "masked_share_training", "masked_share_closed", "hidden_bases_training")
INSIDE = ("purity", "shift", "entropy", "top1", "specials", "near")
MCC = ("mcc_last", "mcc_chosen")
_TINY = ("--size", "tiny", "--start", "structured", "--windows", "full", "--tokens", "64", "--batch-size", "16")
_MODEL = "two layers of width 64, windows of 64 6-mers, 16 a step, learning rate 3e-3"
TUNING = ("--learning-rate", "1e-3")
GENOMES = {
    "yeast": ("genomes/yeast.fa.gz", "12 Mb of S. cerevisiae"),
    "human": ("genomes/human.fa.gz", "6.3 Mb of human chr2 and chr22"),
}


class Task(NamedTuple):
    """A task of fine-tuning: `gue` folder below the folder of --data (or a `prepared` recipe), `epochs`, what it is."""

    epochs: int
    note: str
    gue: str = ""
    prepared: str = ""
    reduced: bool = False


TASKS = {
    "prom-core-tata": Task(4, "GUE prom_core_tata, 4,904 rows of 70 bases", "prom/prom_core_tata"),
    "splice": Task(6, "UCI splice junctions, 70 / 10 / 20 % by distinct sequence", prepared="splice"),
    "splice-256": Task(24, "UCI splice junctions, 256 training rows; dev is larger than train", prepared="splice-256"),
    "mouse-2": Task(6, "GUE mouse/2, 2,620 rows of 101 bases", "mouse/2"),
    "prom-300-tata": Task(4, "GUE prom_300_tata, 4,904 rows of 300 bases", "prom/prom_300_tata"),
    "tf-0": Task(2, "GUE tf/0, 32,378 rows of 101 bases", "tf/0"),
    "mouse-0": Task(5, "GUE mouse/0, 6,478 rows of 101 bases", "mouse/0"),
    "EMP-H3-reduced": Task(6, "GUE EMP/H3 REDUCED: trained on its dev file, its epoch chosen on a tenth of it", "EMP/H3", reduced=True),
}  # fmt: skip
CORE_TASKS = ("prom-core-tata", "splice", "splice-256", "mouse-2")
FURTHER_TASKS = ("prom-300-tata", "tf-0", "mouse-0", "EMP-H3-reduced")


def pretraining(genome: str, name: str, *, arms: tuple[str, ...] = CONTROLS) -> Experiment:
    """The pretrained models themselves: held-out losses, what the masks hid, the staircase."""
    file, what = GENOMES[genome]
    return Experiment(
        name,
        arms,
        SEEDS,
        {"pretrain": _words(genome)},
        {"pretrain": STEPS},
        f"{what}; {_MODEL}, {STEPS:,} steps. Held-out losses in nats a masked token; the same windows in the same order for every arm.",
        (file,),
        commands=("pretrain", "look"),
        numbers=LOOKED_AT,
    )


def inside(genome: str, *, arms: tuple[str, ...] = CONTROLS) -> Experiment:
    """K-mer embeddings and attention of the same pretrained models; runs that stand are looked into, none is made again."""
    own = pretraining(genome, f"{genome}-inside", arms=arms)
    note = (
        f"{GENOMES[genome][1]}; the models of {genome}. purity, shift: k-mers whose nearest neighbour differs in one base, or is moved "
        "by one. entropy (over ln T), top-1, specials, nearby: of attention, means over layers and heads; each layer is in the records."
    )
    return own._replace(note=note, commands=("pretrain", "inside"), numbers=INSIDE)


def task(genome: str, name: str, *, arms: tuple[str, ...] = CORE_ARMS, suffix: str = "") -> Experiment:
    """Fine-tuning of the models of a pretraining, and of fresh ones."""
    of = TASKS[name]
    folder = f"{{data}}/gue/{of.gue}" if of.gue else "{prepared}"
    ending = ".csv.gz" if of.gue else ".csv"
    sides = ("dev", "test") if of.reduced else ("train", "dev", "test")
    rows = (f"{folder}/{sides[0]}{ending}", *(() if of.reduced else ("--dev", f"{folder}/dev{ending}")))
    return Experiment(
        f"{genome}-{name}{suffix}",
        arms,
        SEEDS,
        {
            "pretrain": _words(genome),
            "finetune": (*rows, "--test", f"{folder}/test{ending}", "--epochs", str(of.epochs), *TUNING),
        },
        {"pretrain": STEPS},
        f"{of.note}; {of.epochs} epochs after pretraining on {genome}. Each seed is a pretraining seed.",
        (GENOMES[genome][0], *(f"gue/{of.gue}/{side}.csv.gz" for side in sides if of.gue)),
        of.prepared,
        commands=("pretrain", "finetune"),
        numbers=MCC,
    )


def start(layers: int, width: int, heads: int, *, steps: int, rate: str) -> Experiment:
    """The structured start beside the usual one at one size."""
    size = ("--layers", str(layers), "--width", str(width), "--heads", str(heads))
    return Experiment(
        f"start-{layers}x{width}",
        ("start_usual", "start_structured"),
        SEEDS,
        {"pretrain-sized": ("{data}/genomes/yeast.fa.gz", *size, "--learning-rate", rate)},
        {"pretrain-sized": steps},
        f"{layers} layers of width {width}, {steps:,} steps of `dnabert` masking at {rate}, the same for both starts (ours).",
        ("genomes/yeast.fa.gz",),
        baseline="start_usual",
    )


def _words(genome: str) -> tuple[str, ...]:
    return (f"{{data}}/{GENOMES[genome][0]}", *_TINY)


APART = ("scratch", "scratch_apart", "dnabert", "dnabert_apart")

SCALES: dict[str, Scale] = {
    "smoke": Scale(
        (
            Experiment(
                name="chr22-splice-smoke",
                arms=(*_ARMS, "constant", "constant_share", "uniform", "iid"),
                seeds=(0,),
                words={"pretrain": (*_TINY, "--evaluation-windows", "32"), "finetune": ()},
                steps={"pretrain": 10, "finetune": 5},
                note="A few steps: that it runs, nothing else.",
                commands=("pretrain", "look", "finetune"),
            ),
            Experiment(
                name="chr22-inside-smoke",
                arms=("randommask",),
                seeds=(0,),
                words={"pretrain": (*_TINY, "--evaluation-windows", "32")},
                steps={"pretrain": 10},
                note="The model of the same few steps, looked into: that it runs, nothing else.",
                commands=("pretrain", "inside"),
            ),
        )
    ),
    "quickstart": Scale(
        (
            Experiment(
                name="chr22-splice",
                arms=_ARMS,
                seeds=(0,),
                words={"pretrain": _TINY, "finetune": ("--epochs", "6")},
                steps={"pretrain": 1800},
                note=(
                    "1 Mb of human chromosome 22, then UCI splice junctions; settings ours. "
                    "Losses in nats a masked token on held-out DNA."
                ),
                commands=("pretrain", "finetune"),
                numbers=("loss_width_6", "loss_width_14", *MCC),
            ),
        )
    ),
    "cpu": Scale(
        (pretraining("yeast", "yeast"), *(task("yeast", name) for name in CORE_TASKS), inside("yeast")),
        "Settings ours, fixed beforehand, none tuned per arm; the core set.",
    ),
    "cpu-full": Scale(
        (
            pretraining("human", "human", arms=(*CONTROLS, "uniform", "iid")),
            *(task("human", name) for name in CORE_TASKS),
            inside("human", arms=(*CONTROLS, "uniform", "iid")),
            pretraining("yeast", "yeast-other-controls", arms=("dnabert", "randommask", "uniform", "iid")),
            task("yeast", "prom-core-tata", arms=("dnabert", "randommask", "uniform", "iid"), suffix="-other-controls"),
            task("yeast", "splice", arms=APART, suffix="-apart"),
            task("yeast", "prom-core-tata", arms=APART, suffix="-apart"),
            start(2, 64, 2, steps=1000, rate="3e-3"),
            start(4, 128, 4, steps=1500, rate="2e-3"),
            start(4, 256, 4, steps=1000, rate="1e-3"),
            *(task("yeast", name) for name in FURTHER_TASKS),
        ),
        "Settings ours, fixed beforehand, none tuned per arm; the rest of the evidence.",
    ),
    "paper": Scale(
        PAPER,
        "BERT-base with DNABERT's optimizer and the fine-tuning that DNABERT-2 published. Schedule, steps, held-out chromosome and seeds "
        "are ours; model size, batch and learning rate of RandomMask are not known.",
    ),
}
