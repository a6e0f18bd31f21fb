"""Row 9: a part dies, by SIGKILL or SIGSTOP: a loading process, or one of 2 or 3 gloo processes. All end, one says which, resume is equal.

The part strikes itself, or its child, at a step that is drawn (`recorders.py` says when a step begins), so that nothing hangs on who is
quicker. A stopped process cannot end itself; the suite kills it once the others have ended, as a launcher does. Seconds are counted from
the strike to the end of the last of the others, and are said; a loaded machine may take twice the 30 that an idle one is held to.
"""

import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from faults.bench import Bench, Row
from faults.children import Ended
from faults.company import Company
from faults.comparing import differences
from faults.jobs import make_images
from faults.recorders import Recorder
from scarce_common_utils.run_folder import to_stderr

BOUND = 60.0  # seconds
SIGNALS = (signal.SIGKILL, signal.SIGSTOP)
WORDS = {
    "layermatch": (
        *("train", "IMAGES", "--model", "cnn", "--labels-per-class", "4", "--steps", "12", "--batch-size", "6"),
        *("--unlabelled-ratio", "1", "--checkpoint-every", "2", "--evaluate-every", "12", "--threads", "1"),
        *("--tracker", "none", "--device", "cpu"),
    ),
    "imwa": (
        *(
            "train",
            "digits",
            "--imbalance",
            "20",
            "--replicas",
            "3",
            "--episodes",
            "4",
            "--steps",
            "12",
            "--batch-size",
            "8",
        ),
        *("--checkpoint-every", "2", "--evaluate-every", "12", "--no-diagnostics", "--threads", "1", "--device", "cpu"),
    ),
    "randommask": (
        *("pretrain", "--steps", "12", "--tokens", "16", "--k", "3", "--batch-size", "6", "--evaluation-windows", "4"),
        *("--checkpoint-every", "2", "--threads", "1", "--device", "cpu"),
    ),
}
# By number of processes. imwa's command decodes by threads, which die with it: its first cases are of processes too.
ALONE = {"layermatch": ("--no-in-memory", "--workers", "2"), "randommask": ("--workers", "2")}
SEVERAL = {"layermatch": ("--in-memory",), "imwa": (), "randommask": ()}


def count(bench: Bench, size: str) -> int:
    """6, or 100."""
    return 6 if size == "small" else 100


def case(bench: Bench, number: int) -> list[str]:
    """By turns a loading process, one of two and one of three; of two cases the second is a stop."""
    processes, kind = (1, 2, 3)[number // 2 % 3], SIGNALS[number % 2]
    if processes == 1 and bench.job.package not in ALONE:
        processes = 2
    generator = bench.generator(9, number)
    step, victim = (int(torch.randint(end, (), generator=generator)) for end in (4, max(2, processes)))
    step += 3  # some checkpoint is there, and what is read ahead does not reach the end
    folder = bench.folder(f"bereft-{number}")
    words = [*words_of(bench, processes), "--out", str(folder)]
    what = f"{kind.name} of {'worker' if processes == 1 else 'process'} {victim} of {max(2, processes)} at step {step}"
    ended, seconds = struck(
        bench,
        words,
        processes=processes,
        step=step,
        victim=victim,
        kind=kind,
        file=bench.scratch / f"{folder.name}.struck",
    )
    to_stderr(f"{bench.job.package}: {what}: all others ended after {seconds:.1f} s")
    found = [] if seconds <= BOUND else [f"the others ended after {seconds:.1f} s"]
    found += [f"one ended with {one.code}: {one.last}" for one in ended if one.code != 2]
    said = "\n".join(one.said for one in ended)
    names = (f"process {victim} of {processes} ",) if processes > 1 else ("Worker ", "A process that loads data (")
    if not any(name in said for name in names):
        found.append(f"nobody names it: {[one.last for one in ended]}")
    if not found:
        found += went_on(bench, folder, processes, shell=processes == 1 and bench.by_shell(9, number))
    return [f"{what}: {sentence}" for sentence in found]


def words_of(bench: Bench, processes: int) -> list[str]:
    """Words of the run."""
    package = bench.job.package
    words = [*WORDS[package], *(ALONE if processes == 1 else SEVERAL)[package]]
    return [str(make_images(bench.scratch / "images")) if word == "IMAGES" else word for word in words]


def together(bench: Bench, words: Sequence[str], processes: int) -> list[Ended]:
    """How the processes of a run ended."""
    return [bench.run(words)] if processes == 1 else Company(bench, words, processes=processes).wait()


def struck(
    bench: Bench, words: Sequence[str], *, processes: int, step: int, victim: int, kind: signal.Signals, file: Path
) -> tuple[list[Ended], float]:
    """How all but the victim ended, and how many seconds after it was struck."""
    file.unlink(missing_ok=True)
    fault = functools.partial(strike, bench.job.package, file, step, kind, victim if processes == 1 else None)
    if processes == 1:
        others, gone = [bench.start(words, fault=fault)], None
    else:
        company = Company(bench, words, processes=processes, fault=lambda rank: fault if rank == victim else None)
        others = [child for rank, child in enumerate(company.children) if rank != victim]
        gone = company.children[victim]
    ended = [child.wait() for child in others]
    now = time.time()
    if gone is not None:
        gone.send(signal.SIGKILL)
        gone.wait()
    return ended, now - float(file.read_text()) if file.is_file() else float("inf")


def strike(package: str, file: Path, step: int, kind: signal.Signals, worker: int | None) -> None:
    """In the child: at a step's begin write the time, and send the signal to a loading process, or to itself."""

    def then(count: int) -> None:
        if count == step:
            file.write_text(f"{time.time()}")
            children = sorted(multiprocessing.active_children(), key=lambda child: child.pid or 0)
            os.kill(os.getpid() if worker is None else children[worker % len(children)].pid or 0, kind)

    Recorder(package, Path(os.devnull), then=then)


def went_on(bench: Bench, folder: Path, processes: int, *, shell: bool) -> list[str]:
    """The run goes on in as many processes, from what was kept, to the bits of the run in which nothing died."""
    words = [WORDS[bench.job.package][0], "--resume", str(folder)]
    ended = [bench.shell(words)] if shell else together(bench, words, processes)
    if any(one.code != 0 for one in ended):
        return [f"going on ended with {[one.code for one in ended]}: {ended[0].last}"]
    return differences(whole(bench, processes), folder)


def whole(bench: Bench, processes: int) -> Path:
    """Folder of the run that nothing happened to; made once for each number of processes."""
    folder = bench.scratch / f"whole-of-{processes}"
    if not (folder / "result.json").is_file():
        ended = together(bench, [*words_of(bench, processes), "--out", str(bench.folder(folder.name))], processes)
        if any(one.code != 0 for one in ended):
            raise RuntimeError(
                f"{bench.job.package}, {processes} processes: {[one.code for one in ended]}: {ended[0].said}"
            )
    return folder


ROW = Row(9, "death of a loading process or of one of several processes", count, case)
