"""IMWA in transformers: the plain Trainer bit for bit with one replica, the slow twin with three, resumes, refusals."""

import copy
import logging
import types

import pytest
import torch

from reference.toy import mean_of, named_stream

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: transformers)")

from imwa.integrations.trainer_checks import refuse_trainer  # noqa: E402  (behind the check for transformers)
from imwa.integrations.transformers import (  # noqa: E402  (the same)
    IMWACallback,
    IMWATrainer,
    one_trainer_per_process,
)
from integrations.small_trainer import BATCH, SAMPLES, SEED, STEPS, Net, Samples, trainer_of  # noqa: E402  (the same)


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from iter(Samples())


def everything(trainer):
    found = {f"model/{name}": value.clone() for name, value in trainer.model.state_dict().items()}
    for number, entries in trainer.optimizer.state_dict()["state"].items():
        found.update({f"optimizer/{number}/{name}": torch.as_tensor(value).clone() for name, value in entries.items()})
    found["rate"] = torch.tensor(trainer.lr_scheduler.get_last_lr())
    found["generator"] = torch.get_rng_state()
    return found


def assert_same(one, two):
    assert one.keys() == two.keys()
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


@pytest.mark.parametrize("optimizer_state", ["average", "local"])
@pytest.mark.parametrize("accumulation", [1, 4])  # 6 batches a pass: the second step of a pass has two
def test_o1_one_replica_is_the_plain_trainer(optimizer_state, accumulation, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2, "gradient_accumulation_steps": accumulation, "max_steps": 8}
    plain = trainer_of(transformers.Trainer, tmp_path, **options)
    plain.train()
    expected = everything(plain)
    callback = IMWACallback(replicas=1, episodes=3, optimizer_state=optimizer_state)
    iterated = trainer_of(IMWATrainer, tmp_path, [callback], **options)
    iterated.train()
    assert_same(expected, everything(iterated))
    assert callback.iterative.finished_episodes == 3
    evaluations = [
        [line["eval_loss"] for line in run.state.log_history if "eval_loss" in line] for run in (plain, iterated)
    ]
    assert evaluations[0] == evaluations[1]


def test_o1_reset_is_not_the_plain_trainer(tmp_path):
    ends = []
    for optimizer_state in ("average", "reset"):
        trainer = trainer_of(
            IMWATrainer, tmp_path, [IMWACallback(replicas=1, episodes=3, optimizer_state=optimizer_state)]
        )
        trainer.train()
        ends.append(trainer.model.net[0].weight.detach().clone())
    assert not torch.equal(*ends)


def batches_of(replica, epoch):
    """accelerate's order of one pass: a permutation from seed + pass; replica 0 has the Trainer's seed."""
    seed = SEED if replica == 0 else named_stream(SEED, "replica order", replica)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(seed + epoch))
    return order.split(BATCH)


def twin(*, optimizer_state, replicas, episodes, steps):
    """M models, optimizers and schedules of their own; at an episode's end everybody gets the mean."""
    data, first = Samples(), Net(0.0)
    runs = []
    for _ in range(replicas):
        model = copy.deepcopy(first).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: step / 2 if step < 2 else max(0.0, (steps - step) / (steps - 2))
        )
        runs.append((model, optimizer, schedule))
    for episode in range(episodes):
        for m, (model, optimizer, schedule) in enumerate(runs):
            if optimizer_state == "reset" and episode:
                optimizer.state.clear()
            for step in range(episode * steps // episodes, (episode + 1) * steps // episodes):
                index = batches_of(m, step // 6)[step % 6]
                model(data.features[index], data.labels[index])["loss"].backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                model.zero_grad()
        with torch.no_grad():
            for tensors in zip(*[model.state_dict().values() for model, _, _ in runs], strict=True):
                mean = mean_of(tensors)
                for tensor in tensors:
                    tensor.copy_(mean)
            for parameters in zip(*[model.parameters() for model, _, _ in runs], strict=True):
                states = [optimizer.state[p] for (_, optimizer, _), p in zip(runs, parameters, strict=True)]
                for name in states[0] if optimizer_state == "average" else []:
                    mean = mean_of([state[name] for state in states])
                    for state in states:
                        state[name] = mean.clone()
    return runs[0][0].state_dict()


@pytest.mark.parametrize("optimizer_state", ["average", "local", "reset"])
def test_three_replicas_are_the_slow_twin(optimizer_state, tmp_path):
    steps = 8  # more than a pass over the data, and 3 does not divide it
    callback = IMWACallback(replicas=3, episodes=3, optimizer_state=optimizer_state)
    trainer = trainer_of(IMWATrainer, tmp_path, [callback], dropout=0.0, max_steps=steps)
    trainer.train()
    expected = twin(optimizer_state=optimizer_state, replicas=3, episodes=3, steps=steps)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6, msg=name)


def test_logs_follow_the_replicas_own_steps_and_an_average_is_evaluated_behind_its_episode(tmp_path):
    plain = trainer_of(transformers.Trainer, tmp_path)
    plain.train()
    rates = [line["learning_rate"] for line in plain.state.log_history if "loss" in line]
    averages = []
    callback = IMWACallback(
        replicas=2, episodes=2, after_average=lambda episode, model: averages.append(copy.deepcopy(model).eval())
    )
    trainer = trainer_of(IMWATrainer, tmp_path, [callback], eval_strategy="steps", eval_steps=3)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["imwa_step"] for line in lines] == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert [line["learning_rate"] for line in lines] == [rates[line["imwa_step"]] for line in lines]
    assert [line.get("imwa_replica") for line in lines] == [0, 0, 0, 1, 1, None, 0, 0, 0, 1, 1, None]
    evaluated = [line for line in trainer.state.log_history if "eval_loss" in line]
    assert [line.get("imwa_replica") for line in evaluated] == [0, None, 0, None]
    test = Samples(16)
    losses = [float(average(test.features, test.labels)["loss"].detach()) for average in averages]
    assert [evaluated[1]["eval_loss"], evaluated[3]["eval_loss"]] == pytest.approx(losses, abs=1e-6)


def test_o2_replica_0_trains_with_the_callers_dropout_and_the_others_with_their_own(tmp_path):
    plain = trainer_of(transformers.Trainer, tmp_path)
    plain.train()
    ends = []

    class Look(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model, **others):
            if state.global_step == STEPS:
                ends.append({name: value.clone() for name, value in model.state_dict().items()})

    trainer = trainer_of(IMWATrainer, tmp_path, [IMWACallback(replicas=2, episodes=1), Look()])
    trainer.train()
    assert_same(dict(plain.model.state_dict()), ends[0])
    other = trainer_of(IMWATrainer, tmp_path, [IMWACallback(replicas=2, episodes=1, seed=1)])
    other.train()
    assert not torch.equal(trainer.model.net[0].weight, other.model.net[0].weight)


def test_o3_resumed_within_and_between_episodes_it_ends_with_the_same_bits(tmp_path):
    settings = {"replicas": 3, "episodes": 2, "optimizer_state": "local"}
    whole = trainer_of(IMWATrainer, tmp_path, [IMWACallback(**settings)], save_strategy="steps", save_steps=1)
    whole.train()
    expected = everything(whole)
    # within a replica, at its end, at the end of a pass of the loop, within and behind an episode, before the end
    for step in (1, 3, 6, 8, 9, 12, 17):
        callback = IMWACallback(**settings)
        resumed = trainer_of(IMWATrainer, tmp_path, [callback])
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert_same(expected, everything(resumed))
        assert callback.iterative.finished_episodes == 2
    ended = trainer_of(IMWATrainer, tmp_path, [IMWACallback(**settings)])
    ended.train(resume_from_checkpoint=str(tmp_path / "checkpoint-18"))
    assert_same(dict(whole.model.state_dict()), dict(ended.model.state_dict()))
    with pytest.raises(ValueError, match="replicas is 2 here and 3 there"):
        trainer_of(IMWATrainer, tmp_path, [IMWACallback(replicas=2, episodes=2, optimizer_state="local")]).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-1")
        )


def test_steps_by_epochs_are_one_replicas(tmp_path):
    callback = IMWACallback(replicas=3, episodes=2)
    trainer = trainer_of(IMWATrainer, tmp_path, [callback], max_steps=-1, num_train_epochs=2)
    trainer.train()
    assert (callback.iterative.plan.steps, trainer.state.global_step, trainer.state.epoch) == (12, 36, 6)


def test_stopped_early_it_says_what_the_model_holds(tmp_path, caplog):
    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            control.should_training_stop = state.global_step >= 8
            return control

    averages = []
    callback = IMWACallback(
        replicas=2,
        episodes=2,
        after_average=lambda episode, model: averages.append(model.net[0].weight.detach().clone()),
    )
    trainer = trainer_of(IMWATrainer, tmp_path, [callback, Stop()])
    with caplog.at_level(logging.WARNING, logger="imwa"):
        trainer.train()
    assert "before its last average: 1 of 2 are taken" in caplog.text
    assert not torch.equal(trainer.model.net[0].weight, averages[0])
    callback.iterative.restore_average()
    assert torch.equal(trainer.model.net[0].weight, averages[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_sampling_strategy": "sequential"}, "sampler is SequentialSampler"),
        ({"data": Endless()}, "The loader of Endless has no batches"),
        ({"ignore_data_skip": True}, "ignore_data_skip is True"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps is 4 and a pass over the data has 6 batches"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 3},
            "schedule is ReduceLROnPlateau",
        ),
    ],
)
def test_what_is_not_served_is_refused_by_name(options, words, tmp_path):
    trainer = trainer_of(IMWATrainer, tmp_path / "run", [IMWACallback(replicas=2, episodes=2)], **options)
    with pytest.raises(ValueError, match=words):
        trainer.train()
    assert not (tmp_path / "run" / "checkpoint-1").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"is_deepspeed_enabled": True}, "DeepSpeed is switched on"),
        ({"is_fsdp_enabled": True}, "FSDP is switched on"),
        ({"world_size": 2}, "runs in 2 processes as copies of one model"),
        ({"n_gpu": 4}, "sees 4 GPUs"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size is True"),
    ],
)
def test_other_ways_to_run_are_refused_by_name(changed, words):
    args = {"world_size": 1, "n_gpu": 1, "auto_find_batch_size": False, "ignore_data_skip": False}
    args = types.SimpleNamespace(**{**args, **changed})
    switches = {"is_deepspeed_enabled": False, "is_fsdp_enabled": False}
    trainer = types.SimpleNamespace(args=args, **{**switches, **changed})
    with pytest.raises(ValueError, match=words):
        refuse_trainer(trainer)


def test_callback_and_trainer_need_each_other(tmp_path):
    with pytest.raises(ValueError, match="IMWACallback is in a Trainer that does not know it"):
        trainer_of(transformers.Trainer, tmp_path, [IMWACallback()]).train()
    with pytest.raises(ValueError, match="IMWATrainer has 0 IMWACallbacks"):
        trainer_of(IMWATrainer, tmp_path).train()


def test_a_checkpoint_of_a_plain_trainer_is_refused(tmp_path):
    trainer_of(transformers.Trainer, tmp_path, save_strategy="steps", save_steps=3).train()
    with pytest.raises(ValueError, match=r"checkpoint-3 holds no imwa\.pt"):
        trainer_of(IMWATrainer, tmp_path, [IMWACallback(replicas=2, episodes=2)]).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-3")
        )


def test_processes_need_torchrun(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match="LOCAL_RANK is not set"):
        one_trainer_per_process()
