"""`nox -s reproduce_imwa -- --recipe communication`: M workers for the same time over links of several bandwidths; a table, records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from reproduce.imwa.communication.race import Race, Raced, races
from scarce_common_utils.command_line import Option
from scarce_common_utils.figures import table
from scarce_common_utils.provenance import versions
from scarce_common_utils.records import Record, record_path, write_record

UNITS = {
    "megabytes": "MB a worker", "compute_seconds": "CPU s a worker", "link_seconds": "s a worker", "wall_seconds": "s",
    "accuracy": "%", "accuracy_recomputed": "%",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CommunicationConfig:
    """Options of the race; all settings are ours."""

    workers: Annotated[int, Option("M, processes", at_least=2)] = 2
    steps: Annotated[int, Option("T of IMWA", at_least=1, unit="steps")] = 450
    episodes: Annotated[tuple[int, ...], Option("E, averages of IMWA; give it once for each")] = (5, 30)
    batch_size: Annotated[int, Option("B, images a worker and step", at_least=2)] = 64
    imbalance: Annotated[float, Option("Of the digits: largest over smallest class", at_least=1.0)] = 10.0
    megabits: Annotated[tuple[float, ...], Option("Bandwidths of the link, Mbit/s a worker; give it once for each")] = (
        1.0,
        10.0,
        100.0,
    )
    latency: Annotated[float, Option("Of each collective, seconds", at_least=0.0)] = 0.001
    seeds: Annotated[tuple[int, ...], Option("Give it once for each")] = (0,)
    out: Annotated[Path, Option("Folder for records")] = Path("runs") / "reproduce" / "imwa-communication"
    given: frozenset[str] = frozenset()


def communication(config: CommunicationConfig) -> None:
    """Race batch M x B against IMWA for the same time over each link, and print what each sent and reached."""
    lines = []
    for seed in config.seeds:
        setting = Race(
            workers=config.workers, steps=config.steps, episodes=1, batch_size=config.batch_size,
            imbalance=config.imbalance, seed=seed, latency=config.latency,
        )  # fmt: skip
        for megabits, name, found in races(setting, megabits=config.megabits, episodes=config.episodes):
            lines.append(_line(megabits, seed, name, found))
            _write(config, megabits, seed, name, found)
    heading = [
        "Mbit/s",
        "seed",
        "arm",
        "steps",
        "calls for",
        "MB",
        "CPU s",
        "link s",
        "sum s",
        "accuracy %",
        "BN recomputed %",
    ]
    print("\n" + table(heading, lines))
    print(
        f"Digits {config.imbalance:g}:1, {config.workers} gloo processes, B = {config.batch_size}; of one worker. Bytes are counted, the "
        "link is emulated:\na collective takes at least its latency and its bytes at the bandwidth. The wall's seconds are in the records."
    )  # fmt: skip
    print(f"Records: {config.out}")


def _line(megabits: float, seed: int, name: str, found: Raced) -> list[str]:
    return [
        f"{megabits:g}", str(seed), name, str(found.steps), str(found.reductions), f"{found.megabytes:.1f}",
        f"{found.compute_seconds:.1f}", f"{found.link_seconds:.1f}", f"{found.seconds:.1f}",
        f"{found.accuracy:.1f}", f"{found.accuracy_recomputed:.1f}",
    ]  # fmt: skip


def _write(config: CommunicationConfig, megabits: float, seed: int, name: str, found: Raced) -> None:
    numbers: dict[str, float | None] = {key: float(value) for key, value in found._asdict().items() if key != "arm"}
    experiment = f"communication-m{config.workers}-{megabits:g}-mbit"
    record = Record(experiment=experiment, arm=name, seed=seed, numbers=numbers, units=UNITS, versions=versions("imwa"))
    write_record(record_path(config.out, record), record)
