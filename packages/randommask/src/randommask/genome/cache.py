"""A genome as a memory-mapped file: the base codes of its records, one byte a base, read once from FASTA and checked at each use.

    FOLDER/<stem of the first file>-<key>.codes     UInt8[L], the records end to end
    FOLDER/<stem of the first file>-<key>.json      names, starts, SHA-256 of the sources and of the codes; written last

The key is of the files' paths and of the options. A file that no longer fits its sources is stale, one that no longer fits its own
digest is torn: both are named and made anew. Records are written one by one, so that memory holds one chromosome.

Letters   L bases of the whole genome.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy

from randommask.genome.store import Genome, chosen_records, mapped_genome
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.errors import UserError

FORMAT: Final = 1
_PIECE: Final = 1 << 24


def cached_genome(
    paths: Sequence[Path],
    *,
    folder: Path,
    records: Sequence[str] = (),
    keep_soft_masked: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Genome:
    """The genome of FASTA files, mapped from `folder`; made there first where it is missing, stale or torn.

    Args:
        paths: FASTA files.
        folder: of the cache; made if missing.
        records: names of the records to take; none takes all.
        keep_soft_masked: see `base_codes`.
        tell: called with a sentence when a stale or torn file is made anew.

    Raises:
        UserError: as `read_genome`, or the folder cannot be written.
    """
    key = repr((FORMAT, [str(path.resolve()) for path in paths], list(records), keep_soft_masked))
    stem = paths[0].name.split(".")[0] if paths else "genome"
    base = folder / f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    codes, header = base.with_suffix(".codes"), base.with_suffix(".json")
    sources = [[path.name, _digest_of(path)] for path in paths]
    found, fault = _opened(codes, header, sources=sources)
    if found is not None:
        return found
    if fault:
        tell(f"{codes} {fault}, so it is made anew.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = _write(paths, codes, records=records, keep_soft_masked=keep_soft_masked)
        write_atomically(header, json.dumps(made | {"sources": sources}, indent=1).encode())
    except OSError as error:
        raise UserError(
            f"--cache is {folder}, which cannot be written ({error.strerror or error}). Name another folder."
        ) from error
    found, fault = _opened(codes, header, sources=sources)
    if found is None:
        raise UserError(
            f"{codes} {fault or 'vanished'} while it was made; another process may be writing it. Try again."
        )
    return found


def _opened(codes: Path, header: Path, *, sources: list[list[str]]) -> tuple[Genome | None, str]:
    """The cached genome, or None and what is wrong with the files that are there."""
    if not header.is_file():
        return None, "was left unfinished" if codes.is_file() else ""
    try:
        stored = json.loads(header.read_text(encoding="utf-8"))
        names, starts = tuple(stored["names"]), tuple(stored["starts"])
        if stored["format"] != FORMAT or [list(source) for source in stored["sources"]] != sources:
            return None, "was made from other files"
        genome = mapped_genome(names, starts, codes)
        if codes.stat().st_size != starts[-1] or genome.content_hash != stored["content_hash"]:
            return None, "is damaged"
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        return None, "is damaged"
    return genome, ""


def _write(paths: Sequence[Path], codes: Path, *, records: Sequence[str], keep_soft_masked: bool) -> dict[str, Any]:
    names, starts = [], [0]
    aside = codes.with_suffix(f".{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            for record in chosen_records(paths, records=records, keep_soft_masked=keep_soft_masked):
                file.write(numpy.ascontiguousarray(record.codes).data)
                names.append(record.name)
                starts.append(starts[-1] + len(record.codes))
            file.flush()
            os.fsync(file.fileno())
        genome = mapped_genome(tuple(names), tuple(starts), aside)
        digest = genome.content_hash
        os.replace(aside, codes)
    finally:
        aside.unlink(missing_ok=True)
    return {"format": FORMAT, "names": names, "starts": starts, "content_hash": digest}


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError:
        return ""  # read_fasta says what is wrong with it
    return digest.hexdigest()
