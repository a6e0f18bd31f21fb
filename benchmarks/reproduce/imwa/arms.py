"""Arms of the IMWA reproduction: single runs, the same budget spent in plain ways, replicas averaged once or again and again.

Arms and their numbers are those of the method's controls (M = 3 unless the name says otherwise): 1 single, 2 M times the steps,
3 batch M x B, 4 the prediction ensemble (a column of arm 6 and of every averaged arm), 5 a moving average (a column of every
arm where the experiment asks for it), 6 one average at the end (vanilla MWA), 7 the same after a shared start of T/10, 8 IMWA,
9 a moving average within IMWA (the same column).

A table never shows IMWA beside the single run or MWA alone: where it was tried, one run of three times the steps was better.
Differences are therefore taken from that arm, and the questions below all tables name both sides.
"""

from reproduce.imwa.questions import closing
from reproduce.protocol import Arm, Number

__all__ = ["ARMS", "BASELINE", "NUMBERS", "REPLICAS", "closing"]

REPLICAS = 3


def _averaged(method: str, *words: str, replicas: int = REPLICAS) -> tuple[tuple[str, ...], ...]:
    return (("train", "--method", method, "--replicas", str(replicas), *words),)


def _imwa(episodes: int, *words: str, note: str = "", replicas: int = REPLICAS) -> Arm:
    commands = _averaged("imwa", "--episodes", str(episodes), *words, replicas=replicas)
    return Arm(commands, cost=replicas, note=note or f"{replicas} replicas, {episodes} averages")


def _batch(factor: str, rate: str = "") -> Arm:
    words = ("--learning-rate", rate, "--warm-up", "0.1") if rate else ()
    note = "batch 3 x 64, T steps" + (f", learning rate x {factor} with a warm-up of T/10" if rate else "")
    return Arm((("train", "--method", "single", "--batch-size", "192", *words),), cost=REPLICAS, note=note)


SINGLE = (("train", "--method", "single"),)
SHARED = ("--shared-start", "0.1", "--ensemble")
ARMS = {
    "single": Arm(SINGLE, cost=1, note="one run of T steps"),
    "single-3t": Arm(SINGLE, cost=REPLICAS, steps_factor=REPLICAS, note="one run of 3 T steps"),
    "batch-192": _batch("1"),
    "batch-192-sqrt3": _batch("sqrt(3)", "0.17321"),
    "batch-192-x3": _batch("3", "0.3"),
    "mwa": Arm(_averaged("mwa", "--ensemble"), cost=REPLICAS, note="3 replicas, one average at the end"),
    "mwa-shared": Arm(_averaged("mwa", *SHARED), cost=0.1 + 0.9 * REPLICAS, note="one run to T/10, then as mwa"),
    "imwa": _imwa(10),
    **{f"imwa-e{episodes}": _imwa(episodes) for episodes in (2, 5, 30, 90)},
    "imwa-reset": _imwa(10, "--optimizer-state", "reset", note="momentum dropped in each episode"),
    "imwa-e30-reset": _imwa(30, "--optimizer-state", "reset", note="momentum dropped in each episode"),
    "imwa-e30-local": _imwa(30, "--optimizer-state", "local", note="each replica keeps its momentum"),
}
# One average at a share of the run, and one run from it: the gain at that time (last gain), and what is left of it at the end.
for _share in (0.1, 0.3, 0.5, 0.7, 0.9):
    ARMS[f"mwa-until-{_share}"] = Arm(
        _averaged("mwa", "--average-until", f"{_share}", "--ensemble"),
        cost=round(1 + (REPLICAS - 1) * _share, 3),
        note=f"one average at {_share:g} T, then one run",
    )
# Other numbers of replicas, each with its equal-cost controls.
for _m in (2, 5):
    ARMS[f"single-{_m}t"] = Arm(SINGLE, cost=_m, steps_factor=_m, note=f"one run of {_m} T steps")
    _words = (("train", "--method", "single", "--batch-size", str(64 * _m)),)
    ARMS[f"batch-{64 * _m}"] = Arm(_words, cost=_m, note=f"batch {_m} x 64, T steps")
    ARMS[f"mwa-m{_m}"] = Arm(_averaged("mwa", "--ensemble", replicas=_m), cost=_m, note=f"{_m} replicas, one average")
    ARMS[f"imwa-m{_m}-e30"] = _imwa(30, replicas=_m)

BASELINE = "single-3t"
NUMBERS = (
    Number("accuracy", "accuracy", "%"),
    Number("accuracy_recomputed", "BN recomputed", "%"),
    Number("tail", "tail third", "%"),
    Number("ema", "EMA", "%"),
    Number("ema_recomputed", "EMA, BN recomputed", "%"),
    Number("ensemble", "ensemble", "%"),
    Number("replica_accuracy", "replicas", "%"),
    Number("mean_gain", "mean gain", "points"),
    Number("last_gain", "last gain", "points"),
)
