"""Arms of the IMWA reproduction: a single run, the same budget spent in three plain ways, and iterated averages.

Arms and their numbers are those of the method's controls: 1 single, 2 M times the steps, 3 batch M x B, 6 one average at the
end (vanilla MWA), 8 IMWA; M = 3. A table never shows IMWA beside the single run or MWA alone: where it was tried, one run of
three times the steps was better. Differences are therefore taken from that arm.
"""

from reproduce.protocol import Arm, Number

REPLICAS = 3


def _averaged(method: str, *words: str) -> tuple[tuple[str, ...], ...]:
    return (("train", "--method", method, "--replicas", str(REPLICAS), *words),)


SINGLE = (("train", "--method", "single"),)
ARMS = {
    "single": Arm(SINGLE, cost=1, note="one run of T steps"),
    "single-3t": Arm(SINGLE, cost=REPLICAS, steps_factor=REPLICAS, note="one run of 3 T steps"),
    "batch-192": Arm(
        (("train", "--method", "single", "--batch-size", "192"),), cost=REPLICAS, note="batch 3 x 64, T steps"
    ),
    "mwa": Arm(_averaged("mwa"), cost=REPLICAS, note="3 replicas, one average at the end"),
    "imwa": Arm(_averaged("imwa", "--episodes", "10"), cost=REPLICAS, note="3 replicas, 10 averages"),
    "imwa-e5": Arm(_averaged("imwa", "--episodes", "5"), cost=REPLICAS, note="3 replicas, 5 averages"),
    "imwa-e30": Arm(_averaged("imwa", "--episodes", "30"), cost=REPLICAS, note="3 replicas, 30 averages"),
    "imwa-reset": Arm(
        _averaged("imwa", "--episodes", "10", "--optimizer-state", "reset"),
        cost=REPLICAS,
        note="momentum dropped in each episode",
    ),
}
BASELINE = "single-3t"
NUMBERS = (
    Number("accuracy", "accuracy", "%"),
    Number("accuracy_recomputed", "BN recomputed", "%"),
    Number("tail", "tail third", "%"),
    Number("mean_gain", "mean gain", "points"),
    Number("last_gain", "last gain", "points"),
)
