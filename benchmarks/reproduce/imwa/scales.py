"""How large the IMWA reproduction is at each scale; every M, E and T is ours (none of the paper's settings is known to us).

The settings of `cpu` and `cpu-full` were fixed before any of these runs and are the same for all arms: the small net (8 layers,
BatchNorm), batch 64, SGD 0.1, momentum 0.9, weight decay 5e-4, cosine to 0 over the global step, M = 3, momentum averaged, one
thread. The moving average's memory, 1 / (1 - decay) steps, is 22 % of T in every experiment with the cosine; E averages mix with it
by (T / E) (1 - decay): 0.9 at E = 5, 0.15 at E = 30. A first look on other seeds' splits (digits 20:1 and a smaller Fashion-MNIST)
saw IMWA level with batch M x B and below one run of M T steps; what it left open is asked here: longer schedules, a pre-trained
start, rebalanced losses, other M and learning rates, a constant rate with a moving average, reset against average.
"""

from reproduce.imwa.data import FILES_OF_FASHION, FILES_OF_PRETRAINING
from reproduce.imwa.paper import CONTROLS, PAPER
from reproduce.protocol import Experiment, Scale

DIGITS = ("digits", "--model", "small", "--threads", "1")
FASHION = ("{prepared}", "--model", "small", "--threads", "1")
CORE_ARMS = ("single", "single-3t", "batch-192", "batch-192-x3", "mwa", "mwa-shared", "imwa-e5", "imwa-e30")
SWEPT = ("imwa-e2", "imwa", "imwa-e90")
STATES = ("imwa-reset", "imwa-e30-reset", "imwa-e30-local")
TIMES = tuple(f"mwa-until-{share}" for share in (0.1, 0.3, 0.5, 0.7, 0.9))
OTHER_M = tuple(f"{kind}-{m}t" if kind == "single" else f"{kind}-m{m}" for m in (2, 5) for kind in ("single", "mwa"))
ALL_ARMS = (
    *CORE_ARMS,
    *("batch-192-sqrt3", *SWEPT, *STATES, *TIMES),
    *(*OTHER_M, "batch-128", "batch-320", "imwa-m2-e30", "imwa-m5-e30"),
)
THREE, FIVE = (0, 1, 2), (0, 1, 2, 3, 4)
DECAYS = {450: "0.99", 900: "0.995", 1500: "0.997", 3600: "0.99875"}  # memory 22 % of T
COSTS = "All but the first row cost about three times its steps: compare with single-3t and the batches"


def digits(name: str, imbalance: int, steps: int, *, arms: tuple[str, ...] = CORE_ARMS, seeds: tuple[int, ...] = THREE,
           words: tuple[str, ...] = (), what: str = "") -> Experiment:  # fmt: skip
    """scikit-learn's digits, 8x8; split and rare classes are drawn by each seed."""
    tail = ("--imbalance", str(imbalance)) if imbalance > 1 else ()
    kind = f"long-tailed {imbalance}:1" if imbalance > 1 else "balanced"
    note = f"Digits, {kind}, T = {steps:,}{what}. {COSTS}. Split and rare classes are drawn by each seed."
    own = words or ("--ema-decay", DECAYS[steps])
    return Experiment(name, arms, seeds, {"train": (*DIGITS, *tail, *own)}, {"train": steps}, note)


def fashion(name: str, imbalance: int, steps: int, *, arms: tuple[str, ...] = CORE_ARMS, seeds: tuple[int, ...] = THREE,
            words: tuple[str, ...] = (), what: str = "", pretrained: bool = False) -> Experiment:  # fmt: skip
    """Fashion-MNIST at 14x14, 1,000 images of the commonest class; balanced 250 of each: as many in all as at 100:1."""
    tail = ("--imbalance", str(imbalance)) if imbalance > 1 else ()
    kind = f"long-tailed {imbalance}:1 from 1,000 a class" if imbalance > 1 else "balanced, 250 a class"
    note = f"Fashion-MNIST at 14x14, {kind}, 4,000 test images, T = {steps:,}{what}. {COSTS}. Each seed draws images and rare classes."
    own = words or ("--ema-decay", DECAYS[steps])
    if pretrained:
        start = ("{prepared}/images.npz", *FASHION[1:], "--init-from", "{prepared}/model.safetensors")
        return Experiment(name, arms, seeds, {"train": (*start, *tail, *own)}, {"train": steps}, note,
                          FILES_OF_PRETRAINING, "fashion-14-pretrained")  # fmt: skip
    prepared = "fashion-14-1000-a-class" if imbalance > 1 else "fashion-14-250-a-class"
    return Experiment(
        name, arms, seeds, {"train": (*FASHION, *tail, *own)}, {"train": steps}, note, FILES_OF_FASHION, prepared
    )


CORE = (
    digits("digits-lt-10", 10, 450),
    fashion("fashion-lt-100", 100, 900),
    digits("digits-lt-10-1500-steps", 10, 1500),
)

CONSTANT = ("--schedule", "constant", "--ema-decay", "0.99")
IN_BRIEF = ("single", "single-3t", "batch-192", "mwa", "mwa-shared", "imwa-e5", "imwa-e30")
FULL = (
    digits("digits-lt-10", 10, 450, arms=ALL_ARMS, seeds=FIVE),
    digits("digits-lt-100", 100, 450, arms=ALL_ARMS, seeds=FIVE),
    digits("digits-balanced", 1, 450, arms=ALL_ARMS, seeds=FIVE),
    fashion("fashion-lt-100", 100, 900, arms=ALL_ARMS, seeds=FIVE),
    fashion("fashion-lt-10", 10, 900, arms=(*CORE_ARMS, *TIMES), seeds=FIVE),
    fashion("fashion-balanced", 1, 900, arms=(*CORE_ARMS, *TIMES), seeds=FIVE),
    digits("digits-lt-10-1500-steps", 10, 1500, seeds=FIVE),
    digits("digits-lt-10-3600-steps", 10, 3600, seeds=FIVE, what=": long enough that three times as much gains little"),
    fashion("fashion-lt-100-3600-steps", 100, 3600, arms=IN_BRIEF, seeds=FIVE, what=", four times that of fashion-lt-100"),
    fashion("fashion-lt-100-pretrained", 100, 900, arms=IN_BRIEF, seeds=FIVE, pretrained=True,
            what="; starts from the small net trained on grey CIFAR-10 (JPEG copies), the classifier anew"),
    *(
        fashion(f"fashion-lt-100-{loss}", 100, 900, arms=IN_BRIEF, seeds=FIVE,
                words=("--loss", loss, "--ema-decay", DECAYS[900]), what=f", {loss.replace('-', ' ')}")
        for loss in ("balanced-softmax", "logit-adjustment", "ldam")
    ),
    *(
        digits(f"digits-lt-10-rate-{rate}", 10, 450, arms=IN_BRIEF, seeds=FIVE,
               words=("--learning-rate", rate, *(("--warm-up", "0.1") if rate == "0.3" else ()), "--ema-decay", "0.99"),
               what=f", learning rate {rate}" + (" with a warm-up of T/10" if rate == "0.3" else ""))
        for rate in ("0.03", "0.3")
    ),
    digits("digits-lt-10-constant", 10, 450, arms=IN_BRIEF, seeds=FIVE, words=CONSTANT,
           what=", constant learning rate, a moving average over 100 steps"),
    fashion("fashion-lt-100-constant", 100, 900, arms=IN_BRIEF, seeds=FIVE, words=CONSTANT,
            what=", constant learning rate, a moving average over 100 steps"),
)  # fmt: skip

QUICK = ("digits", "--imbalance", "20", "--model", "small")
SCALES = {
    "smoke": Scale(
        (
            Experiment(
                name="digits-lt-20-smoke",
                arms=(
                    "single",
                    "single-3t",
                    "batch-192-x3",
                    "mwa",
                    "mwa-shared",
                    "mwa-until-0.5",
                    "imwa",
                    "imwa-reset",
                ),
                seeds=(0,),
                words={"train": (*QUICK, "--ema-decay", "0.9")},
                steps={"train": 20},
                note="Does it run: 20 steps say nothing about accuracy.",
            ),
        )
    ),
    "quickstart": Scale(
        (
            Experiment(
                name="digits-lt-20",
                arms=CONTROLS,
                seeds=(0,),
                words={"train": QUICK},
                steps={"train": 450},
                note=(
                    "Digits, long-tailed 20:1 (468 training images, rare classes drawn by the seed), M = 3, T = 450; settings ours. "
                    "All but the first row cost three times its steps: compare imwa with single-3t."
                ),
            ),
        )
    ),
    "cpu": Scale(CORE, "Settings ours, fixed beforehand, none tuned per arm; the core set."),
    "cpu-full": Scale(FULL, "Settings ours, fixed beforehand, none tuned per arm; the rest of the evidence."),
    "paper": Scale(
        PAPER,
        "Protocols of the field's baselines, not confirmed as the paper's; M = 3 and E = 10 are ours: no table of the IMWA paper.",
    ),
}
