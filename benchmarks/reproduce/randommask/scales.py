"""Scales: how long, how large, how many seeds. All settings are ours; no settings of the paper are known to us."""

from reproduce.protocol import Experiment, Scale

_ARMS = ("scratch_usual", "scratch", "dnabert", "randommask")
_TINY = ("--size", "tiny", "--start", "structured", "--windows", "full", "--tokens", "64", "--batch-size", "16")

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
            ),
        )
    ),
    "cpu": Scale(
        (
            Experiment(
                name="chr22-splice",
                arms=(*_ARMS, "constant", "constant_share"),
                seeds=(0, 1, 2),
                words={"pretrain": _TINY, "finetune": ("--epochs", "6")},
                steps={"pretrain": 2300},
                note="Built-in data, two layers of width 64, settings ours; each seed is a pretraining seed.",
            ),
        )
    ),
    "paper": Scale(
        (
            Experiment(
                name="human-base-promoters",
                arms=("scratch_base", "dnabert", "randommask", "constant", "constant_share"),
                seeds=(0,),
                words={
                    "pretrain": (
                        *("{data}/genomes/human.fa.gz", "--size", "base", "--windows", "dnabert", "--tokens", "510"),
                        *(
                            "--batch-size",
                            "125",
                            "--accumulation",
                            "16",
                            "--learning-rate",
                            "4e-4",
                            "--warm-up",
                            "0.02",
                        ),
                        *("--precision", "bf16", "--workers", "8"),
                    ),
                    "finetune": (
                        *(
                            "{data}/gue/prom/prom_300_tata/train.csv.gz",
                            "--dev",
                            "{data}/gue/prom/prom_300_tata/dev.csv.gz",
                        ),
                        *(
                            "--test",
                            "{data}/gue/prom/prom_300_tata/test.csv.gz",
                            "--epochs",
                            "10",
                            "--learning-rate",
                            "3e-5",
                        ),
                    ),
                },
                steps={"pretrain": 480_000},
                note=(
                    "BERT-base with DNABERT's optimizer and 2,000 windows a step over 480,000 steps; model size, batch and learning rate "
                    "of RandomMask are not known, these are ours. It needs genomes/human.fa.gz and gue/prom/prom_300_tata/"
                    " there, and a GPU."
                ),
                files=(
                    "genomes/human.fa.gz",
                    *(f"gue/prom/prom_300_tata/{part}.csv.gz" for part in ("train", "dev", "test")),
                ),
            ),
        )
    ),
}
