"""Row 6: what each step sees is the same list, whoever loads it, in however many processes, from whichever step a run goes on.

A run of 60 steps is recorded whole (`recorders.py`): for every step which images or windows, and digests of what was drawn for them
(views, masks and their width). Then the same run is stopped, by a signal, after every single step and goes on 60 times, each time
with another loader: workers 0, 1, 2, reading further ahead, forked and spawned. Two processes see the parts of what one sees, and
`accumulation x processes` decides alone. imwa's command reads by threads; its loaders are those of `Replica.batches`, which are
asked for the steps from each start on.
"""

import functools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from faults.bench import Bench, Row
from faults.company import Company
from faults.comparing import differences
from faults.jobs import make_images
from faults.recorders import Recorder, lines_of, merged

STEPS = 60
FEW = 8  # steps that two processes are watched for
FIRST_CHECKED = 3  # steps from each start of `Replica.batches`


class Loading(NamedTuple):
    """`words` of a sitting, and options that its DataLoaders get besides."""

    words: tuple[str, ...] = ()
    more: tuple[tuple[str, Any], ...] = ()


FORKED, SPAWNED = ("multiprocessing_context", "fork"), ("multiprocessing_context", "spawn")
AHEAD = ("prefetch_factor", 5)
DISK = "--no-in-memory"
LOADINGS = {
    "layermatch": (
        Loading(("--in-memory",)),
        Loading((DISK, "--workers", "0")),
        Loading((DISK, "--workers", "1"), (FORKED,)),
        Loading((DISK, "--workers", "2"), (FORKED, AHEAD)),
    ),
    "imwa": (Loading(("--in-memory",)), Loading((DISK,))),
    "randommask": (
        Loading(("--workers", "0")),
        Loading(("--workers", "1"), (FORKED,)),
        Loading(("--workers", "2"), (FORKED, AHEAD)),
    ),
}
SPAWNING = {
    "layermatch": Loading((DISK, "--workers", "1"), (SPAWNED,)),
    "randommask": Loading(("--workers", "1"), (SPAWNED, AHEAD)),
}
WORDS = {
    "layermatch": (
        *("train", "IMAGES", "--model", "cnn", "--labels-per-class", "2", "--steps", str(STEPS), "--batch-size", "4"),
        *("--unlabelled-ratio", "2", "--checkpoint-every", str(STEPS), "--evaluate-every", str(STEPS)),
        *("--threads", "1", "--tracker", "none", "--device", "cpu"),
    ),
    "imwa": (
        *("train", "IMAGES", "--replicas", "2", "--episodes", "3", "--steps", str(STEPS // 2), "--batch-size", "4"),
        *("--checkpoint-every", str(STEPS), "--evaluate-every", str(STEPS), "--threads", "1", "--device", "cpu"),
        *("--no-diagnostics",),
    ),
    "randommask": (
        *("pretrain", "--steps", str(STEPS), "--tokens", "16", "--k", "3", "--evaluation-windows", "4"),
        *("--reverse-complement", "0.5", "--checkpoint-every", str(STEPS), "--threads", "1", "--device", "cpu"),
    ),
}
# Of each form what is added; forms take turns in the large size. In randommask the batch is of all processes together.
FORMS = {
    "layermatch": ((), ("--accumulate", "2"), ("--method", "fixmatch", "--seed", "3")),
    "imwa": ((), ("--optimizer-state", "local", "--seed", "3"), ("--ema-decay", "0.9", "--imbalance", "2")),
    "randommask": (
        ("--batch-size", "2"),
        ("--batch-size", "2", "--accumulation", "2"),
        ("--batch-size", "2", "--windows", "strided", "--seed", "3"),
    ),
}
# Words of one process, and of two, that see the same.
ALONE_AND_TWO = {
    "layermatch": ((), ()),
    "imwa": ((), ()),
    "randommask": (("--batch-size", "2", "--accumulation", "2"), ("--batch-size", "4")),
}


def chains(size: str) -> int:
    """Runs that are stopped after every step."""
    return 1 if size == "small" else 16


def extras(bench: Bench) -> int:
    """Cases that stop nothing: two processes, and imwa's loaders."""
    return 1 + (len(LOADERS) if bench.job.package == "imwa" else 0)


def count(bench: Bench, size: str) -> int:
    """60 stops, or 960; then two processes, and imwa's loaders."""
    return chains(size) * STEPS + extras(bench)


def case(bench: Bench, number: int) -> list[str]:
    """The first 60 cases are the steps from which a run goes on; those of the large size come behind the extra ones."""
    if number < STEPS:
        return from_step(bench, 0, number)
    if number < STEPS + extras(bench):
        number -= STEPS
        return two_processes(bench) if number == 0 else loaders(bench, number - 1)
    chain, step = divmod(number - extras(bench), STEPS)
    return from_step(bench, chain, step)


def from_step(bench: Bench, chain: int, step: int) -> list[str]:
    """What the sitting saw that began at a step; behind the last one also what the run came to."""
    package = bench.job.package
    whole, chained = recorded_whole(bench, chain % len(FORMS[package])), stopped_everywhere(bench, chain)
    seen = [line for line in lines_of(beside(chained)) if line["sitting"] == step]
    expected = [*merged(lines_of(beside(whole))).items()]
    share = len(expected) // STEPS  # batches a step
    found = compared(dict(expected[step * share : (step + 1) * share]), merged(seen))
    if step == STEPS - 1 and (chained / "result.json").is_file():
        found += differences(whole, chained)
    return [f"run {chain}, going on at step {step}: {sentence}" for sentence in found]


def compared(expected: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """Where what was seen is not what was expected, the first place of it."""
    if [*expected] != [*seen]:
        return [f"steps {[*seen]} were seen instead of {[*expected]}"]
    for step, parts in expected.items():
        for name, entries in parts.items():
            for place, (one, other) in enumerate(zip(entries, seen[step].get(name, []), strict=False)):
                if one != other:
                    return [f"step {step}, {name} {place} is {other}, not {one}"]
            if len(entries) != len(seen[step].get(name, [])):
                return [f"step {step} has {len(seen[step].get(name, []))} {name}, not {len(entries)}"]
    return []


def recorded_whole(bench: Bench, form: int) -> Path:
    """Folder of the run that nothing stopped, its records beside it; it ends behind its last batch where nobody asks for more."""
    folder = bench.scratch / f"whole-order-{form}"
    if not beside(folder).is_file():
        finish = form == 0 and bench.by_shell(6, 0)
        words = [*words_of(bench), *FORMS[bench.job.package][form], *LOADINGS[bench.job.package][0].words]
        fault = functools.partial(watch, bench.job.package, beside(folder, "part"), None if finish else STEPS)
        ended = bench.run([*words, "--out", str(bench.folder(folder.name))], fault=fault)
        if ended.code != 0:
            raise RuntimeError(f"{bench.job.package}, order of form {form}: ended with {ended.code}: {ended.said}")
        beside(folder, "part").rename(beside(folder))
    return folder


def stopped_everywhere(bench: Bench, chain: int) -> Path:
    """Folder of the run that was stopped behind every step, its records beside it."""
    package = bench.job.package
    folder = bench.scratch / f"whole-order-{chain}-stopped"
    if not beside(folder).is_file():
        form, by_shell = chain % len(FORMS[package]), chain == 0 and bench.by_shell(6, 0)
        first = [*words_of(bench), *FORMS[package][form], "--out", str(bench.folder(folder.name))]
        fault = functools.partial(
            sittings, package, first, folder, beside(folder, "part"), turns(package, chain), STEPS - by_shell
        )
        ended = bench.run([], fault=fault)
        if ended.code != 0:
            raise RuntimeError(f"{package}, order, run {chain}: ended with {ended.code}: {ended.said}")
        beside(folder, "part").rename(beside(folder))
        if by_shell:
            last = bench.shell([first[0], "--resume", str(folder)])
            if last.code != 0:
                raise RuntimeError(f"{package}, order, from the shell: ended with {last.code}: {last.said}")
            whole = lines_of(beside(recorded_whole(bench, form)))[-1]  # what it saw is in its bits
            with beside(folder).open("a") as file:
                file.write(json.dumps(whole | {"sitting": STEPS - 1}) + "\n")
    return folder


def beside(folder: Path, suffix: str = "jsonl") -> Path:
    """The file of a run's records."""
    return folder.with_name(f"{folder.name}.{suffix}")


def turns(package: str, chain: int) -> list[Loading]:
    """How each sitting loads; one, in the middle, by a worker that is spawned, which costs its imports."""
    loadings = LOADINGS[package]
    chosen = [loadings[(step + chain) % len(loadings)] for step in range(STEPS)]
    if package in SPAWNING:
        chosen[(STEPS // 2 + chain) % STEPS] = SPAWNING[package]
    return chosen


def words_of(bench: Bench) -> list[str]:
    """Words of the run, over a few pictures."""
    return [str(few_images(bench)) if word == "IMAGES" else word for word in WORDS[bench.job.package]]


def few_images(bench: Bench) -> Path:
    """Eight pictures of each class, once."""
    folder = bench.scratch / "images-few"
    if not folder.is_dir():
        aside = bench.folder("images-few-being-made")
        for images in sorted(make_images(bench.scratch / "images").iterdir()):
            (aside / images.name).mkdir(parents=True)
            for image in sorted(images.iterdir())[:8]:
                shutil.copy(image, aside / images.name)
        aside.rename(folder)
    return folder


def two_processes(bench: Bench) -> list[str]:
    """Two processes see, laid end to end, what one sees whose accumulation times processes is the same."""
    package, files = bench.job.package, []
    alone, two = ALONE_AND_TWO[package]
    for processes, words in ((1, alone), (2, two)):
        folder = bench.folder(f"order-of-{processes}")
        steps = FEW * (int(words[-1]) if "--accumulation" in words else 1)
        if package == "imwa":  # a replica each: the first episode's steps of both
            steps = STEPS // 3 // processes
        words = [*words_of(bench), *words, "--out", str(folder)]
        written = [beside(folder, f"{rank}.jsonl") for rank in range(processes)]
        faults = [functools.partial(watch, package, file, steps) for file in written]
        if processes == 1:
            ended = [bench.run(words, fault=faults[0])]
        else:
            ended = Company(bench, words, processes=2, fault=lambda rank, faults=faults: faults[rank]).wait()
        if any(one.code != 0 for one in ended):
            return [f"{processes} processes ended with {[one.code for one in ended]}: {ended[0].last}"]
        files.append(lines_of(*written))
    one, other = map(merged, files)
    order = sorted(one)
    found = compared({step: one[step] for step in order}, {step: other[step] for step in sorted(other)})
    return [f"two processes against one: {sentence}" for sentence in found]


def watch(package: str, file: Path, last: int | None) -> None:
    """In the child: record what the run sees, and leave behind batch number `last`."""
    file.unlink(missing_ok=True)

    def then(count: int) -> None:
        if count == last:
            sys.exit(0)

    Recorder(package, file, then=then)


def sittings(package: str, words: Sequence[str], folder: Path, file: Path, turns: list[Loading], last: int) -> None:
    """In the child: the run in as many commands as it has steps, each stopped by a signal in its first step.

    All but the first are run in forks of this process, which so knows what one step leaves in memory, imports above all, and no more.
    """
    file.unlink(missing_ok=True)
    micro = int(words[words.index("--accumulation") + 1]) if "--accumulation" in words else 1

    def then(count: int) -> None:
        if recorder.sitting == STEPS - 1 and count == micro:
            sys.exit(128 + signal.SIGTERM)
        if count == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    recorder = Recorder(package, file, then=then)
    main = import_module(f"{package}.commands").main
    for number, turn in enumerate(turns[:last]):
        recorder.begin(number)
        recorder.loading.clear()
        recorder.loading.update(turn.more)
        command = [*(words if number == 0 else [words[0], "--resume", str(folder)]), *turn.words]
        code = main(command) if number == 0 else forked(main, command)
        if code != 128 + signal.SIGTERM:
            sys.exit(f"sitting {number} ended with {code}")
    sys.exit(0)


def forked(main: Callable[[list[str]], int], words: list[str]) -> int:
    """Exit code of a command in a fork of this process: what it leaves in memory is not there for the next one."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code: object = 1
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


class Numbers(Dataset[Any]):
    """37 numbers, each with one that is drawn while it is read."""

    def __len__(self) -> int:
        return 37

    def __getitem__(self, index: int) -> list[int]:
        """The number and the drawn one."""
        return [index, int(torch.randint(2**31, ()))]


LOADERS: tuple[dict[str, Any], ...] = (
    {"num_workers": 0},
    {"num_workers": 1, "multiprocessing_context": "fork"},
    {"num_workers": 2, "multiprocessing_context": "fork", "prefetch_factor": 5},
    {"num_workers": 1, "multiprocessing_context": "spawn"},
)


def loaders(bench: Bench, number: int) -> list[str]:
    """A replica's batches out of one kind of loader, from each start (with workers from a few) on, against one reading of all."""
    file = bench.folder(f"loader-{number}") / "found.json"
    file.parent.mkdir()
    ended = bench.run([], fault=functools.partial(read_from_starts, LOADERS[number], file))
    if ended.code != 0:
        return [f"loader {LOADERS[number]} ended with {ended.code}: {ended.last}"]
    return [f"loader {LOADERS[number]}: {sentence}" for sentence in json.loads(file.read_text())]


def read_from_starts(options: dict[str, Any], file: Path) -> None:
    """In the child: write where batches from a later start are not those of one reading from the first."""
    whole, found = steps_from(0, {"num_workers": 0}, at_most=STEPS), []
    every = 1 if not options["num_workers"] else STEPS - 1 if options["multiprocessing_context"] == "spawn" else 7
    for start in range(every % STEPS, STEPS, every):
        at_most = STEPS if every > 7 else FIRST_CHECKED
        seen = steps_from(start, options, at_most=at_most)
        expected = {step: whole[step] for step in range(start, min(STEPS, start + at_most))}
        found += [f"step {step}, going on at {start}, differs" for step in expected if seen.get(step) != expected[step]]
    file.write_text(json.dumps(found))
    sys.exit(0)


def steps_from(start: int, options: dict[str, Any], *, at_most: int) -> dict[int, Any]:
    """Batches of a replica's steps by number."""
    from imwa.plan import Plan
    from imwa.replica import Replica

    entry = Plan(steps=STEPS, episodes=1, replicas=2).entry(1)
    replica = Replica(entry, following=start, generator=torch.Generator(), seed=0)
    found = {}
    for step, batch in replica.batches(DataLoader(Numbers(), batch_size=5, **options)):
        found[step] = [part.tolist() for part in batch]
        if len(found) == at_most:
            break
    return found


ROW = Row(6, "order of the data: loaders, processes, resume at every step", count, case)
