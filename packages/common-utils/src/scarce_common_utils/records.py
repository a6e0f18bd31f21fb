"""Records of results: one JSON for each (experiment, arm, seed), and what may be said from several of them.

Paired difference of arms a and b over the seeds that both have: d_s = a_s - b_s, mean d, and the 95 % interval
mean d ± t(0.975, n - 1) s_d / √n (Student's t). One seed gives no interval, and every table says so.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.errors import UserError

# t(0.975, n) for n = 1 to 30, from tables of Student's distribution; above, the next lower of the few rows is taken,
# which makes the interval a little too wide, never too narrow.
_T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_T_975_ABOVE = ((120, 1.980), (60, 2.000), (40, 2.021))
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one run measured. Holds no host, user or path.

    Attributes:
        experiment: what was run on what, such as `layermatch-digits`.
        arm: the method or control, such as `fixmatch`.
        seed: the run's seed.
        numbers: name -> value, such as `{"accuracy": 89.2}`; None for what could not be measured.
        units: name -> unit, such as `{"accuracy": "%"}`.
        digest: digest of the options that decide the numbers.
        command_line: of the run, each path cut to its last name.
        data_digest: digest of the data and of which rows were used for what.
        versions: distribution -> version.
        seconds: wall-clock time of the run.
        threads: threads of torch.
        device: `cpu`, or the accelerator's name.
        notes: sentences for whoever reads the numbers, such as a warning of the run.
    """

    experiment: str
    arm: str
    seed: int
    numbers: dict[str, float | None]
    units: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    command_line: str = ""
    data_digest: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    threads: int = 1
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in (self.experiment, self.arm):
            if not _NAME.match(name):
                raise ValueError(f"{name!r} cannot name an experiment or arm: letters, digits, '.', '_' and '-' alone.")


class Difference(NamedTuple):
    """Paired difference: `mean`, `half_width` of its 95 % interval (None with one seed), and the `seeds` it rests on."""

    mean: float
    half_width: float | None
    seeds: tuple[int, ...]


class Summary(NamedTuple):
    """Mean over seeds, sample `deviation` (None with one seed), and the number of `seeds`."""

    mean: float
    deviation: float | None
    seeds: int


def record_path(folder: Path, record: Record) -> Path:
    """`folder/<experiment>/<arm>/seed-003.json`, where committed records lie."""
    return folder / record.experiment / record.arm / f"seed-{record.seed:03d}.json"


def write_record(path: Path, record: Record) -> Path:
    """Write a record as JSON, atomically; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {name: _finite(value) for name, value in record.numbers.items()}
    write_atomically(
        path, (json.dumps({**asdict(record), "numbers": numbers}, indent=1, sort_keys=True) + "\n").encode()
    )
    return path


def read_record(path: Path) -> Record:
    """Read one record.

    Raises:
        UserError: the file is missing, no JSON, or no record; it is named.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return Record(**content)
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a record ({error}).") from error


def read_records(folder: Path) -> list[Record]:
    """All records below a folder (`**/seed-*.json`), ordered by path; none where the folder is missing."""
    return [read_record(path) for path in sorted(folder.rglob("seed-*.json"))]


def missing_records(records: Iterable[Record], *, arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """The (arm, seed) pairs that `records` do not hold, arm by arm within a seed so that pairs fill up evenly."""
    have = {(record.arm, record.seed) for record in records}
    return [(arm, seed) for seed in seeds for arm in arms if (arm, seed) not in have]


def summary(records: Iterable[Record], *, arm: str, number: str) -> Summary:
    """Mean and sample deviation over seeds of one number of one arm.

    Raises:
        ValueError: no record of the arm has that number.
    """
    values = list(_by_seed(records, arm=arm, number=number).values())
    if not values:
        raise ValueError(f"No record of arm {arm!r} has the number {number!r}.")
    mean = math.fsum(values) / len(values)
    return Summary(mean, _deviation(values) if len(values) > 1 else None, len(values))


def paired_difference(records: Iterable[Record], *, arm: str, baseline: str, number: str) -> Difference:
    """Mean of `arm` minus `baseline` over the seeds that both have, with its 95 % interval (module docstring).

    Raises:
        ValueError: no seed is common to both arms.
    """
    kept = list(records)
    ours, theirs = (_by_seed(kept, arm=name, number=number) for name in (arm, baseline))
    seeds = tuple(sorted(set(ours) & set(theirs)))
    if not seeds:
        raise ValueError(f"Arms {arm!r} and {baseline!r} share no seed with the number {number!r}.")
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    mean = math.fsum(differences) / len(differences)
    if len(seeds) == 1:
        return Difference(mean, None, seeds)
    half_width = student_t_975(len(seeds) - 1) * _deviation(differences) / math.sqrt(len(seeds))
    return Difference(mean, half_width, seeds)


def student_t_975(degrees: int) -> float:
    """The 0.975 quantile of Student's t distribution with `degrees` degrees of freedom, at least 1."""
    if degrees < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, not {degrees}.")
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    return next((value for least, value in _T_975_ABOVE if degrees >= least), _T_975[-1])


def difference_text(difference: Difference) -> str:
    """`+1.2 ± 0.4 (5 seeds)`, or `+1.2 (1 seed: no interval, no claim)`."""
    if difference.half_width is None:
        return f"{difference.mean:+.2f} (1 seed: no interval, no claim)"
    return f"{difference.mean:+.2f} ± {difference.half_width:.2f} ({len(difference.seeds)} seeds)"


def _by_seed(records: Iterable[Record], *, arm: str, number: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for record in records:
        value = record.numbers.get(number)
        if record.arm == arm and value is not None:
            found[record.seed] = value
    return found


def _deviation(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
