"""Eyes of the rows on training: an order that differs in an entry, a kept number that is not finite, a death that nobody names."""

import json
import signal

import pytest
import torch

from faults.bench import Bench
from faults.children import Ended
from faults.comparing import differences
from faults.jobs import JOBS
from faults.poisons import Poison
from faults.recorders import digest, merged
from faults.rows import data_order, death, non_finite


def line(step, *, rank=0, sitting=0, images=((1, "a"), (2, "b"))):
    return {"sitting": sitting, "rank": rank, "step": step, "seen": {"images": [list(one) for one in images]}}


def test_parts_of_processes_are_laid_end_to_end():
    one = merged([line("0", images=[(1, "a"), (2, "b"), (3, "c"), (4, "d")])])
    parts = [line("0", rank=1, images=[(3, "c"), (4, "d")]), line("0", images=[(1, "a"), (2, "b")])]
    assert data_order.compared(one, merged(parts)) == []
    parts[0]["rank"] = -1
    assert data_order.compared(one, merged(parts)) == ["step 0, images 0 is [3, 'c'], not [1, 'a']"]


def test_each_difference_of_two_orders_is_seen():
    whole = merged([line("0"), line("1")])
    assert data_order.compared(whole, merged([line("0"), line("1")])) == []
    assert "steps ['0']" in data_order.compared(whole, merged([line("0")]))[0]
    assert (
        "step 1, images 1" in data_order.compared(whole, merged([line("0"), line("1", images=[(1, "a"), (2, "c")])]))[0]
    )
    assert "1 images, not 2" in data_order.compared(whole, merged([line("0"), line("1", images=[(1, "a")])]))[0]


def test_a_sitting_that_saw_another_step_is_a_fault(tmp_path):
    bench = Bench(JOBS["imwa"], tmp_path)
    whole, stopped = (tmp_path / name for name in ("whole-order-0.jsonl", "whole-order-0-stopped.jsonl"))
    whole.write_text("".join(json.dumps(line(f"{step}")) + "\n" for step in range(60)))
    lines = [line(f"{step}", sitting=step) for step in range(60)]
    stopped.write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert data_order.case(bench, 17) == []
    lines[17]["seen"]["images"][1] = [2, "another view"]
    stopped.write_text("".join(json.dumps(one) + "\n" for one in lines))
    (found,) = data_order.case(bench, 17)
    assert found.startswith("run 0, going on at step 17: step 17, images 1 is")


def test_a_digest_knows_values_and_kinds():
    value = torch.arange(6.0)
    assert digest(value) == digest(value.clone())
    others = (value + 1e-7, value.double(), value.view(2, 3), -value)
    assert len({digest(value), *map(digest, others)}) == 5


def test_a_poison_is_put_into_one_number_once():
    tensors = {"whole": torch.arange(3), "one": torch.zeros(4), "two": torch.zeros(5)}
    poison = Poison(kind="weight", step=3, place=7, value=float("inf"))
    assert not poison.due(2, "weight")
    assert not poison.due(3, "gradient")
    assert poison.due(3, "weight", "gradient")
    poison.into(tensors)
    assert poison.where == "two"
    assert tensors["two"].isinf().sum() == 1
    assert tensors["one"].isinf().sum() == 0
    assert not poison.due(3, "weight")
    poison = Poison(kind="loss", step=0)
    assert poison.of(torch.ones(())).isnan()


SAID = {
    "layermatch": (
        "layermatch: The loss or its gradient was not finite at step 4 (learning rate 0.05, labelled images 1, unlabelled images 2; "
        "not finite now: 'model.body.weight'). That step"
    ),
    "imwa": "imwa: 'optimizer.0.momentum_buffer' holds NaN or infinity after step 4 of replica 1, episode 0. That",
    "randommask": "randommask: The loss is nan at step 5. The step's last batch was number 4; not finite now: 'model.x'.",
}


@pytest.mark.parametrize("package", SAID)
def test_a_sentence_has_to_name_step_and_tensor_or_batch(tmp_path, package):
    bench = Bench(JOBS[package], tmp_path)
    step = 4 if package != "imwa" else 3 + 1  # of replica 1, whose own step is 1
    case = non_finite.Case("moment", step, 0, "nan", 0)
    said = SAID[package] if package != "imwa" else SAID[package].replace("step 4", "step 1")
    ended = {"code": 2, "said": said, "where": "0"}
    assert non_finite.said_what(bench, case, ended) == []
    assert "ended with 0" in non_finite.said_what(bench, case, ended | {"code": 0})[0]
    for taken in ("step ", "'", "batch was number" if package == "randommask" else "'"):
        assert non_finite.said_what(bench, case, ended | {"said": said.replace(taken, "")}), taken
    loss = case._replace(kind="loss")
    if package == "layermatch":
        without = ended | {"said": said.replace("unlabelled images 2", "")}
        assert "the batch is not named" in non_finite.said_what(bench, loss, without)[0]


def test_a_run_that_went_on_has_counted_and_is_finite(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "model").mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "model" / "model.safetensors")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "left_out": 1.0}\n{"step": 1}\n')
    case, ended = non_finite.Case("weight", 0, 0, "nan", 2), {"code": 0, "said": ""}
    assert non_finite.went_on(tmp_path, case, ended) == []
    save_file({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "model" / "model.safetensors")
    assert "['w']" in non_finite.went_on(tmp_path, case, ended)[0]
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    assert "[] were counted" in non_finite.went_on(tmp_path, case, ended)[0]


NAMED = "imwa: process 0 of 2 (numbered from 0) has not been heard of\nimwa: process 1 of 2 (numbered from 0) has not been heard of"


@pytest.mark.parametrize(
    ("ended", "seconds", "found"),
    [
        (Ended(2, NAMED, 1.0), 20.0, None),
        (Ended(2, NAMED, 1.0), 61.0, "ended after 61.0 s"),
        (Ended(None, NAMED, 1.0), 20.0, "one ended with None"),
        (Ended(2, "imwa: Connection closed by peer", 1.0), 20.0, "nobody names it"),
    ],
)
def test_a_death_that_takes_too_long_or_that_nobody_names_is_a_fault(tmp_path, monkeypatch, ended, seconds, found):
    monkeypatch.setattr(death, "struck", lambda *words, **options: ([ended], seconds))
    monkeypatch.setattr(death, "went_on", lambda *words, **options: [])
    sentences = death.case(Bench(JOBS["imwa"], tmp_path), 2)
    assert (found is None) == (sentences == [])
    assert found is None or found in sentences[0]


def test_cases_take_turns():
    bench = type("None", (), {"job": JOBS["layermatch"], "generator": Bench.generator})()
    kinds = {non_finite.of_number(bench, number).kind for number in range(60)}
    assert kinds == {"loss", "gradient", "weight", "centre", "average", "statistic", "moment"}
    assert {non_finite.of_number(bench, number).form for number in range(60)} == {0, 1, 2}
    assert {non_finite.of_number(bench, number).value for number in range(60)} == {"nan", "inf", "-inf"}
    assert death.count(bench, "small") == 6
    assert death.SIGNALS == (signal.SIGKILL, signal.SIGSTOP)


def finished_run(folder):
    from safetensors.torch import save_file

    for name in ("config.json", "split.json", "result.json"):
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    save_file({"w": torch.ones(2)}, folder / "model" / "model.safetensors")
    for rank in range(2):
        store = folder / "checkpoints" / f"process-{rank}-of-2"
        store.mkdir(parents=True)
        torch.save({"w": torch.full((2,), float(rank))}, store / "step-00000004.pt")
    return folder


def test_checkpoints_of_each_process_are_compared(tmp_path):
    one, other = (finished_run(tmp_path / name) for name in ("one", "other"))
    assert differences(one, other) == []
    torch.save({"w": torch.full((2,), 3.0)}, other / "checkpoints" / "process-1-of-2" / "step-00000004.pt")
    assert differences(one, other) == ["step-00000004.pt: state.w differs"]
    (other / "checkpoints" / "process-1-of-2" / "step-00000004.pt").unlink()
    assert differences(one, other)[0].startswith("newest checkpoints are")
    (other / "checkpoints" / "process-1-of-2").rmdir()
    assert differences(one, other)[0].startswith("checkpoints are in ['process-0-of-2', 'process-1-of-2']")
