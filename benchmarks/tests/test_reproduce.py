"""The runner on a package of the test's own, whose command writes what it was given."""

import json
import sys
from pathlib import Path

import pytest

from reproduce import data_files, runner, tables, task
from reproduce.__main__ import main
from reproduce.protocol import Arm, Recipe
from reproduce.runner import Reproduction
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import read_record

COMMANDS = """
import json, os
from pathlib import Path

def main(words):
    option = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
    seed, steps = int(option["--seed"]), int(option.get("--steps", 1))
    if option.get("--fail") == option["--seed"]:
        print("a reason")
        return 2
    accuracy = 50.0 + seed + (10.0 if option.get("--method") == "ours" else 0.0) * (1 + seed % 2)
    numbers = {"accuracy": accuracy, "steps": float(steps)}
    if words[0] == "second":
        numbers = {"second": float(json.loads((Path(option["--run"]) / "result.json").read_text())["numbers"]["accuracy"])}
    out = Path(option["--out"])
    out.mkdir(parents=True)
    (out / "words.json").write_text(json.dumps([*words, os.environ.get("OMP_NUM_THREADS", "")]))
    content = {"experiment": "e", "arm": "a", "seed": seed, "numbers": numbers, "units": {name: "%" for name in numbers}}
    (out / "result.json").write_text(json.dumps(content))
    print("ran")
    return 0
"""
ARMS = """
from reproduce.protocol import Arm, Number, Reference
ARMS = {
    "plain": Arm((("train", "--method", "plain"),), without=("--threshold",)),
    "ours": Arm((("train", "--method", "ours"), ("second", "--run", "{first}")), cost=2),
    "long": Arm((("train",),), steps_factor=3),
    "own": Arm((("here", "--word", "{seed}", "--list", "{package}/list.txt"),)),
}
OWN = {"here": lambda words: __import__("made_up.commands").commands.main(["of this folder", *words])}
NUMBERS = (Number("accuracy", "accuracy", "%"), Number("second", "second", "%"), Number("never", "never"))
BASELINE = "plain"
REFERENCES = (Reference("floor", "steps", "accuracy"),)
"""
SCALES = """
from reproduce.protocol import Experiment, Scale
WORDS = {"train": ("{data}/x", "--threshold", "0.5", "--size", "3")}
small = Experiment("small", ("plain", "ours"), (3, 4), WORDS, {"train": 7}, "Small.")
made = small._replace(name="small-made-images", words={"train": ("{prepared}",)}, prepared="squares")
needy = Experiment("needy", ("plain", "long"), (0,), {}, {"train": 2}, "Needs.", files=("a.txt", "b/c.txt"))
SCALES = {
    "smoke": Scale((small,)),
    "cpu": Scale((small, needy._replace(files=()))),
    "cpu-full": Scale((small, needy)),
    "paper": Scale((small._replace(trial=made), needy)),
    "quickstart": Scale((Experiment("own", ("own",), (5,), {}, {}, "Own."),)),
}
"""
DATA = """
from reproduce.protocol import Recipe
def make(data, seed, path):
    path.write_text(f"{data} {seed}")
PREPARED = {"squares": Recipe(make, suffix=".txt")}
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A package `made_up` and its arms and scales, importable here and in processes of their own."""
    root = tmp_path / "modules"
    (root / "made_up").mkdir(parents=True)
    (root / "made_up" / "__init__.py").touch()
    (root / "made_up" / "commands.py").write_text(COMMANDS)
    (root / "arms_of_made_up").mkdir()
    for name, content in (("__init__", ""), ("arms", ARMS), ("scales", SCALES), ("data", DATA)):
        (root / "arms_of_made_up" / f"{name}.py").write_text(content)
    benchmarks = Path(runner.__file__).parent.parent
    folder = root / "benchmarks" / "reproduce"
    folder.mkdir(parents=True)
    for file in (benchmarks / "reproduce").glob("*.py"):
        (folder / file.name).write_text(file.read_text())
    (root / "arms_of_made_up").rename(folder / "made_up")
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.syspath_prepend(str(root / "benchmarks"))  # for other processes, which are given this path
    monkeypatch.setattr("reproduce.__path__", [str(folder), *sys.modules["reproduce"].__path__])
    monkeypatch.setattr(runner.metadata, "version", lambda name: "1.0")
    yield root
    for name in [name for name in sys.modules if name.startswith(("made_up", "reproduce.made_up"))]:
        del sys.modules[name]


def reproduction(out, scale="cpu", data=Path("d"), **options):
    return Reproduction("made_up", scale=scale, out=out, data=data, **options)


def words_of(out, experiment, arm, seed, command=1):
    return json.loads((out / "runs" / experiment / arm / f"seed-{seed:03d}" / str(command) / "words.json").read_text())[
        :-1
    ]


def test_each_arm_gets_its_words_steps_seed_and_folder(made_up, tmp_path):
    records = reproduction(tmp_path / "out", data=Path("somewhere")).run()
    out = tmp_path / "out"
    assert words_of(out, "small", "ours", 4) == [
        *(
            "train",
            "--method",
            "ours",
            "somewhere/x",
            "--threshold",
            "0.5",
            "--size",
            "3",
            "--steps",
            "7",
            "--seed",
            "4",
        ),
        *("--out", str(out / "runs/small/ours/seed-004/1")),
    ]
    assert words_of(out, "small", "ours", 4, 2)[:3] == ["second", "--run", str(out / "runs/small/ours/seed-004/1")]
    assert words_of(out, "needy", "long", 0)[1:3] == ["--steps", "6"]
    ours = next(record for record in records if record.arm == "ours" and record.seed == 3)
    assert ours.numbers["accuracy"] == 73.0
    assert ours.numbers["second"] == 73.0
    assert ours.numbers["cpu_seconds"] is not None
    assert len(records) == 2 * 2 + 2


def test_without_leaves_out_an_option_and_its_value_and_nothing_else(made_up, tmp_path):
    reproduction(tmp_path, data=Path("d")).run()
    assert words_of(tmp_path, "small", "plain", 3)[:-2] == [
        *("train", "--method", "plain", "d/x", "--size", "3", "--steps", "7", "--seed", "3")
    ]


@pytest.mark.parametrize(
    ("words", "without", "left"),
    [
        (("data", "--a", "1", "--b", "2"), ("--a",), ["data", "--b", "2"]),
        (("data", "--a", "1", "--b", "2"), ("--b", "--a"), ["data"]),
        (("--a", "--b", "--b", "3"), ("--a",), ["--b", "3"]),
        (("data", "--ab", "1"), ("--a",), ["data", "--ab", "1"]),
        (("data",), (), ["data"]),
    ],
)
def test_left_words(words, without, left):
    assert runner._left(words, without) == left


def test_a_later_run_does_only_what_is_missing(made_up, tmp_path, capsys):
    reproduction(tmp_path).run()
    (tmp_path / "records/small/ours/seed-004.json").unlink()
    capsys.readouterr()
    records = reproduction(tmp_path).run()
    printed = capsys.readouterr().out
    assert printed.count("$ made_up train") == 1
    assert "--seed 4" in printed
    assert len(records) == 6


@pytest.mark.parametrize("what", ["words", "version", "prepared"])
def test_other_words_or_another_version_make_a_record_stale(made_up, tmp_path, monkeypatch, what):
    first = reproduction(tmp_path)
    assert len(first.run()) == 6
    second = reproduction(tmp_path)
    if what == "words":
        second.arms_module.ARMS["plain"] = Arm((("train", "--method", "other"),))
        assert len(second.records()) == 3
    elif what == "version":
        monkeypatch.setattr(runner.metadata, "version", lambda name: "1.1" if name == "made_up" else "1.0")
        assert second.records() == []
    else:
        second.experiments = tuple(e._replace(prepared="squares") for e in second.experiments)
        assert second.records() == []


def test_the_digest_is_the_same_wherever_the_data_lie(made_up, tmp_path):
    reproduction(tmp_path, data=tmp_path / "here").run()
    assert len(reproduction(tmp_path, data=tmp_path / "there").records()) == 6


def test_parts_by_name_and_unknown_names(made_up, tmp_path):
    chosen = reproduction(tmp_path, experiments=["small"], arms=["ours"], seeds=[3])
    assert [(record.experiment, record.arm, record.seed) for record in chosen.run()] == [("small", "ours", 3)]
    assert [e.name for e in reproduction(tmp_path, arms=["long"]).experiments] == ["needy"]
    with pytest.raises(UserError, match=r"--experiment is 'smal'; this scale has small, needy\."):
        reproduction(tmp_path, experiments=["smal"])
    with pytest.raises(UserError, match=r"--arms is 'our'; there are long, ours, plain\."):
        reproduction(tmp_path, arms=["our"])
    with pytest.raises(UserError, match=r"--scale is 'huge'; made_up has smoke, cpu"):
        reproduction(tmp_path, scale="huge")


def test_several_jobs_give_the_same_records_with_one_thread_each(made_up, tmp_path, monkeypatch):
    for name in task.ONE_THREAD:
        monkeypatch.setenv(name, "7")
    one = reproduction(tmp_path / "one").run()
    several = reproduction(tmp_path / "several").run(jobs=2)
    keys = [
        (r.experiment, r.arm, r.seed, r.digest, {n: v for n, v in r.numbers.items() if n != "cpu_seconds"}) for r in one
    ]
    assert keys == [
        (r.experiment, r.arm, r.seed, r.digest, {n: v for n, v in r.numbers.items() if n != "cpu_seconds"})
        for r in several
    ]
    folder = tmp_path / "several/runs/small/plain"
    assert json.loads((folder / "seed-003/1/words.json").read_text())[-1] == "1"
    assert (folder / "seed-003.log.txt").read_text().rstrip().endswith("ran")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_run_is_named_and_what_ended_before_is_kept(made_up, tmp_path, jobs):
    chosen = reproduction(tmp_path)
    chosen.arms_module.ARMS["ours"] = Arm((("train", "--fail", "4"),))
    with pytest.raises(UserError, match=r"made_up train --fail 4 .* ended with exit code 2") as caught:
        chosen.run(jobs=jobs)
    if jobs == 2:
        assert "Its last line: a reason" in str(caught.value)
    assert {(r.arm, r.seed) for r in chosen.records() if r.experiment == "small"} >= {("plain", 3), ("ours", 3)}
    assert not (tmp_path / "records/small/ours/seed-004.json").exists()


def test_smoke_starts_anew_and_removes_nothing_else(made_up, tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    reproduction(tmp_path, scale="smoke").run()
    before = read_record(tmp_path / "records/small/ours/seed-004.json")
    path = tmp_path / "records/small/ours/seed-004.json"
    path.write_text(path.read_text().replace(str(before.numbers["accuracy"]), "1.0"))
    records = reproduction(tmp_path, scale="smoke").run()
    assert all(record.numbers["accuracy"] != 1.0 for record in records)
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_missing_data_are_named_and_nothing_is_written(made_up, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    with pytest.raises(UserError, match=r"needy of made_up needs b/c\.txt, and .*data does not hold it"):
        reproduction(tmp_path / "out", scale="cpu-full", data=tmp_path / "data").run()
    with pytest.raises(UserError, match=r"needy of made_up needs a\.txt, b/c\.txt, and no folder was given"):
        reproduction(tmp_path / "out", scale="cpu-full", data=None).run()
    with pytest.raises(UserError, match=r"small of made_up needs --data FOLDER\. Small\."):
        reproduction(tmp_path / "out", data=None).run()
    assert not (tmp_path / "out").exists()
    assert len(reproduction(tmp_path / "out", scale="cpu-full", experiments=["small"]).run()) == 4


def test_a_file_of_another_content_is_told_and_never_committed(made_up, tmp_path, monkeypatch, capsys):
    import hashlib

    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    (data / "a.txt").write_text("a")
    (data / "b" / "c.txt").write_text("c")
    listed = {"a.txt": hashlib.sha256(b"a").hexdigest(), "b/c.txt": hashlib.sha256(b"other").hexdigest()}
    monkeypatch.setattr(data_files, "DIGESTS", listed)
    monkeypatch.setattr(runner, "COMMITTED", tmp_path / "committed")
    chosen = reproduction(tmp_path / "out", scale="cpu-full", data=data)
    chosen.run()
    assert "b/c.txt is not the file of benchmarks/README.md" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"b/c\.txt in .*data differs"):
        chosen.commit()
    assert not (tmp_path / "committed").exists()
    monkeypatch.setitem(listed, "b/c.txt", hashlib.sha256(b"c").hexdigest())
    written = chosen.commit()
    assert len(written) == 6
    assert tmp_path / "committed/made_up/needy/long/seed-000.json" in written
    assert len(chosen.records(tmp_path / "committed/made_up")) == 6


def test_prepared_data_are_made_once_for_each_seed(made_up, tmp_path):
    chosen = reproduction(tmp_path, scale="paper", generated=True, data=Path("d"))
    records = chosen.run()
    assert [e.name for e in chosen.experiments] == ["small-made-images"]
    assert {record.experiment for record in records} == {"small-made-images"}
    path = tmp_path / "prepared/seed-003/squares.txt"
    assert path.read_text() == "d 3"
    assert words_of(tmp_path, "small-made-images", "plain", 3)[3] == str(path)
    path.write_text("old")
    (tmp_path / "records/small-made-images/plain/seed-003.json").unlink()
    chosen.run()
    assert path.read_text() == "old"
    assert not list(tmp_path.rglob("unfinished*"))
    with pytest.raises(UserError, match="nothing that runs on generated data"):
        reproduction(tmp_path, scale="cpu", generated=True)


def test_a_command_of_this_folder(made_up, tmp_path):
    reproduction(tmp_path, scale="quickstart", steps=9).run()
    assert words_of(tmp_path, "own", "own", 5)[:-2] == [
        *("of this folder", "--word", "5", "--list", str(made_up / "made_up" / "list.txt"), "--seed", "5")
    ]


def test_a_shared_command_runs_once_for_all_experiments_with_its_words(made_up, tmp_path, capsys):
    chosen = reproduction(tmp_path, arms=["ours"], seeds=[3])
    small = chosen.experiments[0]
    other = {"train": ("{data}/x", "--size", "4")}
    chosen.arms_module.SHARED = ("train",)
    chosen.experiments = (
        small,
        small._replace(name="alone", commands=("train",)),
        small._replace(name="again", words=small.words | {"second": ("--more", "1")}),
        small._replace(name="other", words=other),
        small._replace(name="recipe", words=small.words | {"second": ("{prepared}",)}, prepared="squares"),
    )
    found = {record.experiment: record for record in chosen.run()}
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ made_up")]
    assert [line.split()[2] for line in lines] == ["train", "second", "second", "train", "second", "second"]
    places = {
        name: line.split("--run ")[1].split()[0] for name, line in zip("abcd", lines[1:3] + lines[4:], strict=True)
    }
    assert places["a"] == places["b"] == places["d"] != places["c"]
    assert {path.name.split("-")[0] for path in (tmp_path / "shared").iterdir()} == {"train"}
    assert len(list((tmp_path / "shared").iterdir())) == 2
    assert found["alone"].numbers.keys() == {"accuracy", "steps", "cpu_seconds"}
    assert found["small"].numbers["second"] == found["again"].numbers["second"] == found["small"].numbers["accuracy"]
    assert not list((tmp_path / "runs/alone").rglob("words.json"))


def test_a_shared_run_that_another_process_ended_first_is_taken(made_up, tmp_path, monkeypatch):
    there = tmp_path / "shared" / "train-1"

    def slower(package, words, folder):
        for place, accuracy in ((there, 1.0), (folder, 2.0)):
            place.mkdir(parents=True, exist_ok=True)
            record = task.Record(experiment="e", arm="a", seed=0, numbers={"accuracy": accuracy})
            task.write_record(place / "result.json", record)
        return record

    monkeypatch.setattr(task, "_run_line", slower)
    assert task._run_once("made_up", ["train"], there).numbers == {"accuracy": 1.0}
    assert [path.name for path in there.parent.iterdir()] == ["train-1"]


def test_an_experiment_shows_the_numbers_it_names(made_up, tmp_path):
    chosen = reproduction(tmp_path, experiments=["small"], seeds=[3])
    records = chosen.run()
    assert tables.columns(chosen, chosen.experiments[0], records) == ["arm", "accuracy %", "second %", "cost", "s"]
    only = chosen.experiments[0]._replace(numbers=("second",))
    assert tables.columns(chosen, only, records) == ["arm", "second %", "cost", "s"]


def test_steps_and_seeds_replace_those_of_the_scale(made_up, tmp_path):
    reproduction(tmp_path, steps=2, seeds=[1]).run()
    words = words_of(tmp_path, "small", "ours", 1)
    assert words[words.index("--steps") + 1] == "2"
    assert words_of(tmp_path, "needy", "long", 1)[1:3] == ["--steps", "6"]


def test_report_gives_means_differences_and_what_is_missing(made_up, tmp_path):
    chosen = reproduction(tmp_path)
    chosen.run()
    (tmp_path / "records/small/plain/seed-004.json").unlink()
    text = tables.report(chosen, chosen.records())
    assert "small, 2 seeds, 3 of 4 runs. Small." in text
    assert len([line for line in text.splitlines() if line.startswith("plain")]) == 2  # one a table of means
    assert "never" not in text
    assert "+20.00 (no interval)" in text
    assert "needy, 1 seed. Needs." in text
    assert "One seed: these rows show" in text
    chosen.run()
    text = tables.report(chosen, chosen.records())
    # ours: 3 -> 73, 4 -> 64; plain: 53, 54; differences 20 and 10, t(0.975, 1) = 12.706
    assert "68.5 ± 6.4" in text
    assert "ours  2  +15.00 ± 63.53" in text
    assert [line.split()[0] for line in text.splitlines() if line.startswith("floor")] == ["floor"] * 2


def test_figures_are_drawn_where_there_is_an_interval(made_up, tmp_path):
    chosen = reproduction(tmp_path)
    records = chosen.run()
    made = tables.draw(chosen, records, tmp_path / "figures")
    assert made == [tmp_path / "figures/small.png"]
    assert made[0].read_bytes()[:4] == b"\x89PNG"


def test_readme_lists_every_data_file_with_its_digest():
    text = (Path(runner.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip().strip("`"): cells[-2].strip().strip("`")
        for line in text.splitlines()
        if len(cells := line.split("|")) > 4 and len(cells[-2].strip().strip("`")) == 64
    }
    assert rows == data_files.DIGESTS


def test_every_experiment_of_the_packages_is_whole():
    from importlib import import_module

    for package in ("layermatch", "imwa", "randommask"):
        arms = import_module(f"reproduce.{package}.arms")
        scales = import_module(f"reproduce.{package}.scales").SCALES
        assert arms.BASELINE in arms.ARMS
        for scale in scales.values():
            names = [experiment.name for experiment in scale.experiments]
            assert len(names) == len(set(names))
            for experiment in list(scale.experiments) + [e.trial for e in scale.experiments if e.trial]:
                assert set(experiment.arms) <= set(arms.ARMS), experiment.name
                assert set(experiment.files) <= set(data_files.DIGESTS), experiment.name
                assert experiment.baseline in ("", *experiment.arms)
                words = " ".join(word for line in experiment.words.values() for word in line)
                assert ("{prepared}" in words) == bool(experiment.prepared)
                if experiment.prepared:
                    recipe = import_module(f"reproduce.{package}.data").PREPARED[experiment.prepared]
                    assert isinstance(recipe, Recipe)


def test_command_line(made_up, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce", "layermatch", "--scale", "cpu", "--experiment", "digits"])
    assert main() == 2
    assert "this scale has" in capsys.readouterr().err
