"""Row 3: checkpoints cut at any length, with bits flipped, swapped with another run's, with a file gone: named, the older one used.

Cuts and flips are looked at by the package's own reader in this process, thousands of them; every twentieth case runs the command.
"""

import shutil
from pathlib import Path

import torch

from faults.bench import Bench, Row, checkpoints
from scarce_common_utils.checkpoints import newest_checkpoint

FLIPS_A_CASE, CUTS_A_CASE = 100, 100


def count(bench: Bench, size: str) -> int:
    """2,000 flips, or 100,000; all cuts of the small files, and of the large ones a hundred lengths a case; swaps, losses, commands."""
    return 40 if size == "small" else 1060


def case(bench: Bench, number: int) -> list[str]:
    """By turns flips and cuts of the newest checkpoint; every twentieth case the whole command on one that is torn."""
    folder = bench.folder(f"torn-{number}")
    shutil.copytree(bench.whole(0)[0], folder)
    if number % 20 == 0:
        return command(bench, folder, number)
    kind = (flips, cuts)[number % 2]
    return kind(bench, folder, number)


def flips(bench: Bench, folder: Path, number: int) -> list[str]:
    """One bit of one file of the newest checkpoint at a time."""
    generator, newest = bench.generator(3, number), checkpoints(folder)[-1]
    files = files_of(newest)
    found = []
    for _ in range(FLIPS_A_CASE):
        file = files[int(torch.randint(len(files), (), generator=generator))]
        content = bytearray(file.read_bytes())
        place, bit = (
            int(torch.randint(len(content), (), generator=generator)),
            int(torch.randint(8, (), generator=generator)),
        )
        content[place] ^= 1 << bit
        found += with_content(folder, file, bytes(content), f"bit {bit} of byte {place} flipped")
    return found


def cuts(bench: Bench, folder: Path, number: int) -> list[str]:
    """Files of the newest checkpoint cut: small ones at every length, others at lengths drawn."""
    generator, newest = bench.generator(3, number), checkpoints(folder)[-1]
    files = files_of(newest)
    file = files[number // 2 % len(files)]
    content = file.read_bytes()
    if len(content) <= CUTS_A_CASE:
        lengths = list(range(len(content)))
    else:
        lengths = [
            0,
            1,
            len(content) - 1,
            *torch.randint(len(content), (CUTS_A_CASE - 3,), generator=generator).tolist(),
        ]
    return [found for length in lengths for found in with_content(folder, file, content[:length], f"cut at {length}")]


def with_content(folder: Path, file: Path, content: bytes, what: str) -> list[str]:
    """What the reader says of a checkpoint one of whose files holds something else; put back afterwards."""
    before, newest, said = file.read_bytes(), checkpoints(folder)[-1], []
    file.write_bytes(content)
    try:
        chosen = newest_checkpoint(folder / "checkpoints", said.append)
    except Exception as error:
        return [f"{file.name}, {what}: {type(error).__name__}: {error}"]
    finally:
        file.write_bytes(before)
    if chosen == newest:
        return [f"{file.name}, {what}: loaded in silence"]
    older = checkpoints(folder)[-2]
    return [] if chosen == older and said else [f"{file.name}, {what}: {chosen} was chosen, and {said} said"]


def command(bench: Bench, folder: Path, number: int) -> list[str]:
    """The run goes on from the older checkpoint, says which was passed over, and ends with the same bits."""
    (folder / "result.json").unlink()
    newest = checkpoints(folder)[-1]
    files = files_of(newest)
    file = files[number // 20 % len(files)]
    kind = number // 20 % 3
    if kind == 0:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == 1:
        file.unlink()
    else:  # another run's, with its digests
        other = checkpoints(bench.whole(2)[0])[-1]
        for mine, theirs in zip(files, files_of(other), strict=False):
            mine.write_bytes(theirs.read_bytes())
    words = [bench.job.words[0], "--resume", str(folder)]
    ended = bench.shell(words) if bench.by_shell(3, number) else bench.run(words)
    found = []
    if ended.code != 0:
        return [f"{file.name}, kind {kind}: going on ended with {ended.code}: {ended.last}"]
    if newest.name not in ended.said:
        found.append(f"{file.name}, kind {kind}: the checkpoint that was passed over is not named")
    return found + bench.go_on(folder, 0)


def files_of(checkpoint: Path) -> list[Path]:
    """Files of a checkpoint with their digests."""
    if checkpoint.is_dir():
        return sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return [checkpoint, checkpoint.with_suffix(".sha256")]


ROW = Row(3, "torn, flipped, swapped checkpoints", count, case)
