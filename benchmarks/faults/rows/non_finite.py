"""Row 8: a NaN or an infinity in the loss, a gradient, a weight, a centre, an average, a moment, a statistic or a replica's end.

The run ends with 2 and a sentence that names the step, and the tensor or the batch; every checkpoint that stays is whole and has the
bits of the run that was never poisoned, and what goes on from there ends with that run's bits. Under `--on-nonfinite count` and
`--on-nan leave-out` the run goes to its end, counts, and keeps finite numbers. The value is put in by `poisons.py`; one child runs a
group of cases, one command after the other.
"""

import contextlib
import functools
import io
import json
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from faults.bench import Bench, Row, checkpoints
from faults.comparing import differences, states_differ
from faults.poisons import KINDS, planted
from scarce_common_utils.checkpoints import checkpoint_step, verify
from scarce_common_utils.errors import UserError
from scarce_common_utils.finite import not_finite

GROUP = 20  # cases of one child
RESUMED = 20  # of so many cases one goes on to its end
VALUES = ("nan", "inf", "-inf")
WORDS = {
    "layermatch": (
        *("train", "digits", "--model", "cnn", "--labels-per-class", "2", "--steps", "12", "--batch-size", "4"),
        *("--unlabelled-ratio", "2", "--checkpoint-every", "3", "--evaluate-every", "12", "--threads", "1"),
        *("--tracker", "none", "--device", "cpu"),
    ),
    "imwa": (
        *(
            "train",
            "digits",
            "--imbalance",
            "5",
            "--replicas",
            "2",
            "--episodes",
            "2",
            "--steps",
            "6",
            "--batch-size",
            "8",
        ),
        *(
            "--checkpoint-every",
            "2",
            "--evaluate-every",
            "6",
            "--ema-decay",
            "0.9",
            "--no-diagnostics",
            "--threads",
            "1",
        ),
        *("--device", "cpu"),
    ),
    "randommask": (
        *("pretrain", "--steps", "12", "--tokens", "16", "--k", "3", "--batch-size", "2", "--evaluation-windows", "4"),
        *("--checkpoint-every", "3", "--dropout", "0.1", "--threads", "1", "--device", "cpu"),
    ),
}
STEPS = 12  # of each, over all replicas
PRECISIONS = ((), ("--precision", "bf16"))
GOING_ON = {"layermatch": ("--on-nonfinite", "count"), "imwa": ("--on-nan", "leave-out")}  # a choice of the package


class Case(NamedTuple):
    """`form` 0 is float32, 1 bf16, 2 the choice to go on."""

    kind: str
    step: int
    place: int
    value: str
    form: int


def count(bench: Bench, size: str) -> int:
    """60, or 350."""
    return 60 if size == "small" else 350


def of_number(bench: Bench, number: int) -> Case:
    """Kinds, steps and values take turns; of thirty cases the last five are bf16, and two before them choose to go on."""
    package, generator = bench.job.package, bench.generator(8, number)
    form = 1 if number % 30 >= 25 else 2 if number % 30 >= 23 and package in GOING_ON else 0
    drawn = int(torch.randint(10**6, (), generator=generator))
    value = VALUES[number // 2 % 3]
    kinds = KINDS[package]
    if form == 2:
        return Case(
            ("loss", "gradient")[number % 2] if package == "layermatch" else "weight", drawn % STEPS, drawn, value, 2
        )
    return Case(kinds[number % len(kinds)], 1 + drawn % (STEPS - 1), drawn, value, form)


def case(bench: Bench, number: int) -> list[str]:
    """One poisoned run."""
    one = of_number(bench, number)
    ended, folder = poisoned(bench, number), bench.scratch / f"not-finite-{number}"
    what = f"{one.value} in {one.kind} ({ended['where']}) at step {one.step}, form {one.form}"
    if not ended["where"]:
        return [f"{what}: it was never put in"]
    found = kept_whole(bench, folder, one)
    if one.form == 2:
        found += went_on(folder, one, ended)
    else:
        found += said_what(bench, one, ended)
        if number % RESUMED == 0 and not found:
            found += goes_on(bench, folder, one.form, shell=bench.by_shell(8, number))
    return [f"{what}: {sentence}" for sentence in found]


def said_what(bench: Bench, one: Case, ended: dict[str, Any]) -> list[str]:
    """The exit code, and whether step, tensor or batch are named."""
    last = (ended["said"].strip().splitlines() or [""])[-1]
    if ended["code"] != 2:
        return [f"ended with {ended['code']}: {last}"]
    package, found = bench.job.package, []
    named = [int(step) for step in re.findall(r"steps? (\d+)", last)]
    first = named[0] if named else -1
    step = one.step
    if package == "imwa":  # named by replica, as its own steps count
        episode, rest = divmod(one.step, 6)
        replica, step = divmod(rest, 3)
        step += 3 * episode
        if f"replica {replica}, episode {episode}" not in last:
            found.append(f"replica {replica} of episode {episode} is not named: {last}")
    after = step + (1 if package == "randommask" else 0)  # it counts steps done
    if not after <= first <= after + 3:
        found.append(f"the step is not named: {last}")
    through_loss = package == "layermatch" and one.kind in ("loss", "gradient")
    if (
        package == "layermatch"
        and one.kind in ("weight", "centre", "average", "statistic")
        and ended["where"] not in last
    ):
        found.append(f"the tensor is not named: {last}")
    if through_loss and "unlabelled images" not in last:
        found.append(f"the batch is not named: {last}")
    if one.kind != "loss" and not re.search(r"'[\w ]+\.[\w.]+'", last):
        found.append(f"no tensor is named: {last}")
    if package == "randommask" and last.startswith("randommask: The loss") and "batch was number" not in last:
        found.append(f"the batch is not named: {last}")
    return found


def kept_whole(bench: Bench, folder: Path, one: Case) -> list[str]:
    """Whether each checkpoint that stays is whole and, where the run stopped, has the bits of the run without a poison."""
    found = []
    for path in checkpoints(folder):
        try:
            verify(path)
        except UserError as error:
            found.append(str(error))
        places = [] if one.form == 2 else states_differ(whole(bench, one.form) / "checkpoints" / path.name, path)
        found += [f"{path.name}: {place} is not what it was" for place in places]
    due = [step for step in range(1, STEPS) if step % _every(bench) == 0 and step <= one.step]
    newest = [checkpoint_step(path) for path in checkpoints(folder)][-1:]
    if one.form != 2 and newest != due[-1:]:
        found.append(f"the newest checkpoint is {newest}, not {due[-1:]}")
    if one.form != 2 and (folder / "result.json").exists():
        found.append("there is a result")
    return found


def _every(bench: Bench) -> int:
    words = WORDS[bench.job.package]
    return int(words[words.index("--checkpoint-every") + 1])


def went_on(folder: Path, one: Case, ended: dict[str, Any]) -> list[str]:
    """A run that may go on is at its end, has counted, and holds finite numbers."""
    if ended["code"] != 0:
        return [f"ended with {ended['code']}: {(ended['said'].strip().splitlines() or [''])[-1]}"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    counted = [line[name] for line in lines for name in ("steps_left_out", "left_out") if name in line]
    found = [] if counted and counted[-1 if "steps_left_out" in lines[-1] else 0] == 1 else [f"{counted} were counted"]
    places = [not_finite(load_file(path)) for path in (folder / "model").glob("*.safetensors")]
    return found if places == [[]] else [*found, f"{places} of the model are not finite"]


def goes_on(bench: Bench, folder: Path, form: int, *, shell: bool) -> list[str]:
    """The same run without the poison, from where it stopped, against the one that never had it."""
    words = [WORDS[bench.job.package][0], "--resume", str(folder)]
    if not (folder / "config.json").is_file():
        return ["it left no run to go on with"]
    ended = bench.shell(words) if shell else bench.run(words)
    if ended.code != 0:
        return [f"going on ended with {ended.code}: {ended.last}"]
    return differences(whole(bench, form), folder)


def whole(bench: Bench, form: int) -> Path:
    """Folder of the run that nothing was put into, with every checkpoint; made once."""
    folder = bench.scratch / f"whole-finite-{form}"
    if not (folder / "result.json").is_file():
        words = [*WORDS[bench.job.package], *PRECISIONS[form], "--out", str(bench.folder(folder.name))]
        ended = bench.run(words, fault=keep_every_checkpoint)
        if ended.code != 0:
            raise RuntimeError(f"{bench.job.package}, finite, form {form}: ended with {ended.code}: {ended.said}")
    return folder


def keep_every_checkpoint() -> None:
    """In the child: let no checkpoint go."""
    from scarce_common_utils import checkpoints

    checkpoints._forget_older = lambda *words, **options: None


def poisoned(bench: Bench, number: int) -> dict[str, Any]:
    """How a case's run ended; its group is run where it was not yet."""
    group, first = bench.scratch / f"whole-not-finite-{number // GROUP}.json", number // GROUP * GROUP
    if not group.is_file():
        forms = (*PRECISIONS, GOING_ON.get(bench.job.package, ()))
        cases = {}
        for member in range(first, first + GROUP):
            one, folder = of_number(bench, member), bench.folder(f"not-finite-{member}")
            words = [*WORDS[bench.job.package], *forms[one.form], "--out", str(folder)]
            cases[member] = (words, dict(zip(("kind", "step", "place", "value"), one, strict=False)))
        ended = bench.run([], fault=functools.partial(run_cases, bench.job.package, cases, group))
        if ended.code != 0:
            raise RuntimeError(
                f"{bench.job.package}: the child of cases {first} on ended with {ended.code}: {ended.said}"
            )
    return json.loads(group.read_text())[str(number)]


def run_cases(package: str, cases: dict[int, tuple[Sequence[str], dict[str, Any]]], file: Path) -> None:
    """In the child: each case's command with its poison, and what it said."""
    poison, main, found = planted(package), import_module(f"{package}.commands").main, {}
    for number, (words, fields) in cases.items():
        vars(poison).update(fields | {"value": float(fields["value"]), "where": ""})
        said, code = io.StringIO(), None
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = main(list(words))
            except BaseException:
                said.write(traceback.format_exc())
        found[number] = {"code": code, "said": said.getvalue(), "where": poison.where}
    file.write_text(json.dumps(found))
    sys.exit(0)


ROW = Row(8, "NaN or infinity in one number", count, case)
