"""Row 5: fuzzed FASTA, tables, parquet and images, gzip and block gzip cut at every byte: right, or one sentence with file and line.

Right is what a slow twin says (`twins.py`). A case is 500 files, one after the other in a forked child; randommask has 18 cases of the
small size, layermatch and imwa one each: 10,000 files in all.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch

from faults import fuzzing, twins
from faults.bench import Bench, Row
from faults.fuzzed_images import cut_image, image_folder, list_file
from faults.judging import Refused, judged, outcome, sentence_of
from faults.watching import Attempt, faults_of

FILES_A_CASE = 500
CASES = {"layermatch": 1, "imwa": 1, "randommask": 18}


def count(bench: Bench, size: str) -> int:
    """10,000 files over the three packages, or 1,000,000; and one command from the shell."""
    return 1 + CASES[bench.job.package] * (1 if size == "small" else 100)


def case(bench: Bench, number: int) -> list[str]:
    """The shell first, then files by turns of kinds."""
    if number == 0:
        return from_the_shell(bench) if bench.by_shell(5, 0) else []
    seed = int(torch.randint(2**62, (), generator=bench.generator(5, number)))
    task = functools.partial(fuzzed, package=bench.job.package, seed=seed)
    return faults_of(task, folder=bench.folder(f"fuzzed-{number}"), hook=False)


def fuzzed(folder: Path, *, package: str, seed: int, files: int = FILES_A_CASE) -> Iterator[Attempt]:
    """In the child: so many attempts."""
    draw, made = Random(seed), 0
    kinds = KINDS_OF_DNA if package == "randommask" else KINDS_OF_IMAGES
    weights = [weight for _, weight in kinds]
    yield Attempt("the first of all", functools.partial(warm, folder, package), seconds=60.0)
    while made < files:
        kind = draw.choices(kinds, weights)[0][0]
        for attempt in kind(folder / f"{made}", draw):
            yield attempt._replace(name=f"file {made} of seed {seed}, {attempt.name}")
            made += 1
            if made == files:
                return


def warm(folder: Path, package: str) -> None:
    """Load what is loaded on first use, so that no file is charged for it."""
    for kind, _ in KINDS_OF_DNA if package == "randommask" else KINDS_OF_IMAGES:
        attempt = next(iter(kind(folder / f"warm-{kind.__name__}", Random(0))))
        attempt.read()


def fasta_file(path: Path, draw: Random) -> Iterator[Attempt]:
    """One FASTA file."""
    path = path.with_suffix(".fa")
    path.write_bytes(raw := fuzzing.fasta(draw))
    piece = draw.choice([1 << 24, 1 << 24, 1, 7, 64])
    yield Attempt("FASTA", functools.partial(check_fasta, path, raw, piece))
    path.unlink()


def check_fasta(path: Path, raw: bytes, piece: int) -> list[str]:
    """The genome's reader and the sequences' against the twin."""
    from randommask.alphabet import bases
    from randommask.genome import fasta
    from randommask.genome.sequences import read_sequences

    whole, fasta._PIECE = fasta._PIECE, piece  # pyright: ignore[reportAttributeAccessIssue]  (a constant, but for this)
    try:
        found = outcome(lambda: [(one.name, bases(one.codes)) for one in fasta.read_fasta(path)])
    finally:
        fasta._PIECE = whole  # pyright: ignore[reportAttributeAccessIssue]  (as above)
    inside = twins.gunzipped(raw)
    expected = inside if isinstance(inside, twins.Bad) else twins.fasta(inside)
    faults = judged(found, expected, path, line=not isinstance(inside, twins.Bad))
    return faults + [
        f"as sequences: {sentence}" for sentence in sentence_of(outcome(lambda: read_sequences(path)), path)
    ]


def cut_file(path: Path, draw: Random) -> Iterator[Attempt]:
    """A gzip or block gzip file, FASTA or table, cut at every byte: refused each time, whole it is read."""
    kind = draw.choice([fuzzing.fasta, fuzzing.table])
    text = b">one\nACGTACGT\n>two\nGATTACA\n" if kind is fuzzing.fasta else b"sequence,label\nACGT,0\nGATTACA,1\n"
    blocks = draw.random() < 0.6
    whole = (
        b"".join(fuzzing.block_gzip(text, size=draw.choice([5, 9, 64])))
        if blocks
        else fuzzing.gzip.compress(text, mtime=0)
    )
    path, first = path.with_suffix(".gz"), draw.randrange(2, len(whole))
    for length in [len(whole), *range(first, min(len(whole), first + 60))]:
        path.write_bytes(whole[:length])
        reads = check_fasta_cut if kind is fuzzing.fasta else check_table_cut
        yield Attempt(
            f"gzip cut at {length} of {len(whole)}", functools.partial(reads, path, refused=length < len(whole))
        )
    path.unlink()


def check_fasta_cut(path: Path, *, refused: bool) -> list[str]:
    """By both readers."""
    from randommask.genome.fasta import read_fasta
    from randommask.genome.sequences import read_sequences

    found = [outcome(lambda: len(list(read_fasta(path)))), outcome(lambda: len(read_sequences(path).names))]
    return [fault for one in found for fault in cut_faults(one, path, refused=refused, whole=2)]


def check_table_cut(path: Path, *, refused: bool) -> list[str]:
    """By the tables' reader."""
    from randommask.data.tables import read_table

    return cut_faults(outcome(lambda: len(read_table(path).labels)), path, refused=refused, whole=2)


def cut_faults(found: Any, path: Path, *, refused: bool, whole: int) -> list[str]:
    """A cut file is refused, a whole one read whole."""
    if not refused:
        return [] if found == whole else [f"whole it was read as {found}"]
    return sentence_of(found, path) if isinstance(found, Refused) else [f"cut, it was read as {found}"]


def table_file(path: Path, draw: Random) -> Iterator[Attempt]:
    """One CSV or TSV."""
    path = path.with_suffix(".csv")
    path.write_bytes(raw := fuzzing.table(draw))
    yield Attempt("table", functools.partial(check_table, path, twins.gunzipped(raw)))
    path.unlink()


def check_table(path: Path, inside: Any) -> list[str]:
    """The tables' reader against the twin; what is made of the rows must refuse in a sentence too."""
    from randommask.data.labelled import read_labelled
    from randommask.data.tables import read_table

    found = outcome(lambda: list(zip(*read_table(path), strict=True)))
    if isinstance(inside, bytes) and b"\0" in inside and isinstance(found, Refused):
        expected: Any = twins.Bad()  # Python's csv refuses what RFC 4180 does not speak of
    else:
        expected = inside if isinstance(inside, twins.Bad) else twins.table(inside)
    for task in ("classes", "regression"):
        outcome(lambda task=task: read_labelled(path, dev=path, test=path, task=task))
    return judged(found, expected, path, line=isinstance(inside, bytes))


def other_packing(path: Path, draw: Random) -> Iterator[Attempt]:
    """A table by bzip2 or xz: harmed, it is refused, or nothing of it was lost."""
    header, content = fuzzing.rows(draw)
    raw = "\n".join([",".join(header), *(",".join(row[name] for name in header) for row in content)]).encode() + b"\n"
    whole, found = fuzzing.packed_twice(draw, raw)
    path = path.with_suffix(".csv.xz")
    path.write_bytes(found)
    yield Attempt("bzip2 or xz", functools.partial(check_other_packing, path, twins.table(raw), whole=found == whole))
    path.unlink()


def check_other_packing(path: Path, expected: Any, *, whole: bool) -> list[str]:
    """All rows or a sentence; of a file without harm all rows."""
    from randommask.data.tables import read_table

    found = outcome(lambda: list(zip(*read_table(path), strict=True)))
    if isinstance(found, Refused):
        return ["was refused whole: " + found.sentence] if whole else sentence_of(found, path)
    return [] if found == expected else [f"was read as {str(found)[:80]} for {str(expected)[:80]}"]


def parquet_file(path: Path, draw: Random) -> Iterator[Attempt]:
    """A table as parquet, maybe harmed."""
    import pyarrow

    from faults.columns import written

    _, content = fuzzing.rows(draw)
    spoilt = draw.choice([None, None, None, "", "MKVL", " "])
    values = [spoilt if draw.random() < 0.05 else row["sequence"] for row in content]
    options = {"compression": draw.choice(["none", "snappy", "gzip"]), "use_dictionary": draw.random() < 0.5}
    raw = written(
        pyarrow.table(
            {"sequence": pyarrow.array(values, pyarrow.string()), "label": [int(row["label"]) for row in content]}
        ),
        **options,
    )
    line = next(
        (number for number, value in enumerate(values, 1) if not value or not value.strip() or value == "MKVL"), 0
    )
    expected = twins.Bad(line) if line else [(row["sequence"].upper(), row["label"]) for row in content]
    found = fuzzing.harmed(draw, raw, often=0.7)
    path = path.with_suffix(".parquet")
    path.write_bytes(found)
    yield Attempt(
        "parquet", functools.partial(check_parquet, path, expected, whole=found == raw, cut=len(found) < len(raw))
    )
    path.unlink()


def check_parquet(path: Path, expected: Any, *, whole: bool, cut: bool) -> list[str]:
    """Whole it is read right or its row named; cut it is refused. A flipped bit of a value, without a checksum, may be read as another."""
    from randommask.data.tables import read_table

    found = outcome(lambda: list(zip(*read_table(path), strict=True)))
    if whole:
        return judged(found, expected, path, line=True, word="row")
    if cut and not isinstance(found, Refused):
        return ["cut, it was read"]
    return sentence_of(found, path)


def from_the_shell(bench: Bench) -> list[str]:
    """A command on a file that is cut: exit code 2, one sentence that names it."""
    folder = bench.folder("fuzzed-0")
    if bench.job.package == "randommask":
        folder.mkdir()
        file = folder / "cut.fa.gz"
        file.write_bytes(b"".join(fuzzing.block_gzip(b">one\nACGTACGT\n", size=5)[:-1]))
        words = ["pretrain", str(file), "--out", str(folder / "run")]
    else:
        for number in range(4):
            (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            (folder / "ab"[number % 2] / f"{number}.ppm").write_bytes(b"P6 8 8 255\n" + bytes(192 if number else 100))
        file = folder / "a" / "0.ppm"
        more = ["--labels-per-class", "1"] if bench.job.package == "layermatch" else []
        words = ["train", str(folder), *more, "--out", str(folder.with_name("fuzzed-0-run"))]
    ended = bench.shell(words)
    return [] if ended.code == 2 and file.name in ended.said else [f"a cut file: ended with {ended.code}: {ended.last}"]


KINDS_OF_DNA: tuple[tuple[Callable[[Path, Random], Iterator[Attempt]], float], ...] = (
    (fasta_file, 45), (table_file, 40), (cut_file, 0.25), (other_packing, 5), (parquet_file, 4),
)  # fmt: skip
KINDS_OF_IMAGES: tuple[tuple[Callable[[Path, Random], Iterator[Attempt]], float], ...] = (
    (image_folder, 10), (cut_image, 0.6), (list_file, 8),
)  # fmt: skip
ROW = Row(5, "fuzzed FASTA, tables, parquet, images", count, case)
