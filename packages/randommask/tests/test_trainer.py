from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, Trainer

from randommask import KmerTokenizer, MaskedBert, MaskSchedule, RandomMaskCollator, RandomMaskTrainer, masked_share
from scarce_common_utils.errors import UserError
from training_runs import SCHEDULE, STEPS, WIDTHS, K, arguments, model, run, sequences


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"), gradient_accumulation_steps=2)


def test_each_batch_has_the_width_of_its_own_step(plain):
    assert len(set(WIDTHS)) == 5
    assert plain[0] == [width for width in WIDTHS for _ in range(2)]


@pytest.mark.parametrize(
    "loading",
    [
        {"dataloader_num_workers": 2},
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 6},
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    ],
)
def test_loading_workers_and_prefetching_change_no_bit(plain, tmp_path, loading):
    seen, parameters, _ = run(tmp_path, gradient_accumulation_steps=2, **loading)
    assert seen == plain[0]
    assert same(parameters, plain[1])


@pytest.mark.parametrize("accumulation", [1, 3])
def test_widths_under_other_accumulations(tmp_path, accumulation):
    seen, _, _ = run(tmp_path, gradient_accumulation_steps=accumulation)
    assert seen == [width for width in WIDTHS for _ in range(accumulation)]


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_ends_with_the_same_bits_at_the_right_widths(plain, tmp_path, workers):
    run(tmp_path, gradient_accumulation_steps=2, save_strategy="steps", save_steps=3)
    seen, parameters, trainer = run(
        tmp_path,
        gradient_accumulation_steps=2,
        dataloader_num_workers=workers,
        resume=str(tmp_path / "checkpoint-3"),
    )
    assert seen == plain[0][6:]
    assert same(parameters, plain[1])
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses == [line["loss"] for line in plain[2].state.log_history if "loss" in line]


def test_a_checkpoint_of_another_model_is_refused_with_its_differences(tmp_path):
    run(tmp_path, save_strategy="steps", save_steps=9)
    file = tmp_path / "checkpoint-9" / "model.safetensors"
    tensors = load_file(file)
    name = "bert.embeddings.position_embeddings.weight"
    tensors["another.weight"] = tensors.pop(name)
    tensors["cls.predictions.bias"] = tensors["cls.predictions.bias"].double()
    save_file(tensors, file, metadata={"format": "pt"})
    wanted = (
        rf"checkpoint-9 does not fit.*cls.predictions.bias is float64.*{name} is missing; another.weight is not needed"
    )
    with pytest.raises(UserError, match=wanted):
        run(tmp_path, resume=str(file.parent))


def test_epochs_are_turned_into_steps(tmp_path):
    trainer = RandomMaskTrainer(
        model(),
        arguments(tmp_path, max_steps=-1, num_train_epochs=1.5, gradient_accumulation_steps=2),
        data_collator=RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE),
        train_dataset=sequences(),
    )
    assert trainer.args.max_steps == 12  # 1.5 x 64 / 8
    assert len(trainer.get_train_dataloader()) == 24


class Ready:
    """Collator that hands out ready-masked examples, so that both accumulations see the same tokens."""

    def __init__(self):
        self.tokenizer = KmerTokenizer(k=K)
        self.schedule, self.accumulation, self.processes = 5, 1, 1

    def __call__(self, examples):
        rows = [example.example if hasattr(example, "example") else example for example in examples]
        batch = {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "attention_mask", "labels")}
        batch["masked_positions"] = (batch["labels"].view(-1) != -100).nonzero().squeeze(1)
        batch["mask_width"] = torch.tensor(5)
        return batch

    def at_width(self, width):
        return self


def ready_examples():
    collator = RandomMaskCollator(KmerTokenizer(k=K), schedule=5, probability=0.08)
    batch = collator(sequences(16))
    counts = (batch["labels"] != -100).sum(1)
    assert len(set(counts.tolist())) > 3  # rows differ in what is masked, so a mean of means would be another number
    return [{name: batch[name][row] for name in ("input_ids", "attention_mask", "labels")} for row in range(16)]


class AnyModel(torch.nn.Module):
    """A masked-language model of somebody's own, that takes nothing but ids and a mask."""

    def __init__(self, config):
        super().__init__()
        self.config, self.bert = config, BertForMaskedLM(config).bert
        self.cls = torch.nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, input_ids, attention_mask):
        states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return SimpleNamespace(logits=self.cls(states))

    def tie_weights(self):
        """Nothing is tied."""


@pytest.mark.parametrize(
    ("kind", "trainer_class"),
    [
        (MaskedBert, RandomMaskTrainer),
        (BertForMaskedLM, RandomMaskTrainer),
        (AnyModel, RandomMaskTrainer),
        (MaskedBert, Trainer),
    ],
)
def test_accumulation_16_x_1_and_4_x_4_give_the_same_loss_and_gradient(tmp_path, kind, trainer_class):
    logged, gradients, parameters = [], [], []
    for batch_size, accumulation in ((16, 1), (4, 4)):
        kept = {}

        def keep(optimizer, args, kwargs, kept=kept):
            kept["gradients"] = [p.grad.clone() for group in optimizer.param_groups for p in group["params"]]

        made = model(kind, dropout=0.0)
        trainer = trainer_class(
            made,
            arguments(
                tmp_path,
                max_steps=1,
                remove_unused_columns=False,
                per_device_train_batch_size=batch_size,
                gradient_accumulation_steps=accumulation,
                max_grad_norm=1e9,
            ),
            data_collator=Ready(),
            train_dataset=ready_examples(),
            **({"shuffle": False} if trainer_class is RandomMaskTrainer else {}),
        )
        trainer.create_optimizer()
        trainer.optimizer.register_step_pre_hook(keep)
        trainer.train()
        logged.append(next(line for line in trainer.state.log_history if "loss" in line))
        gradients.append(kept["gradients"])
        parameters.append(list(made.parameters()))
    assert logged[0]["loss"] == pytest.approx(logged[1]["loss"], rel=1e-6)
    assert logged[0]["grad_norm"] == pytest.approx(logged[1]["grad_norm"], rel=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_stock_bert_takes_the_same_steps_as_ours(tmp_path):
    # Plain gradient descent: Adam would turn the rounding of a gradient near 0 into a whole step. No dropout: ours draws none
    # where the last layer is not computed.
    (_, ours, first), (_, theirs, second) = (
        run(tmp_path, kind=kind, gradient_accumulation_steps=2, optim="sgd", learning_rate=0.05, dropout=0.0)
        for kind in (MaskedBert, BertForMaskedLM)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)
    losses = [[line["loss"] for line in t.state.log_history if "loss" in line] for t in (first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_log_holds_width_share_and_hidden_bases(tmp_path):
    data = sequences(256, 60)
    _, _, trainer = run(tmp_path, data=data, per_device_train_batch_size=64)
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["mask_width"] for line in lines] == WIDTHS
    for line in lines:
        expected = masked_share(int(line["mask_width"]), 0.05, tokens=58)
        assert line["masked_share"] == pytest.approx(expected, abs=0.06)
        assert 0.3 < line["hidden_bases"] < 1


def test_evaluation_is_at_a_fixed_width_and_the_same_every_time(tmp_path):
    trainer = RandomMaskTrainer(
        model(dropout=0.0),
        arguments(tmp_path),
        data_collator=RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE),
        eval_dataset=sequences(16),
    )
    assert trainer.eval_width == K + 8
    first, again = trainer.evaluate(), trainer.evaluate()
    assert first["eval_loss"] == again["eval_loss"]
    narrow = RandomMaskTrainer(
        model(dropout=0.0),
        arguments(tmp_path),
        data_collator=RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE),
        eval_dataset=sequences(16),
        eval_width=K,
    )
    assert narrow.evaluate()["eval_loss"] != first["eval_loss"]


def test_a_batch_without_a_target_is_a_step_with_loss_zero(tmp_path):
    collator = RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE, probability=0.0)
    _, parameters, trainer = run(tmp_path, collator=collator, max_steps=2, weight_decay=0.0)
    assert [line["loss"] for line in trainer.state.log_history if "loss" in line] == [0.0, 0.0]
    assert same(parameters, [p.detach() for p in model().parameters()])


def test_a_collator_told_another_accumulation_is_refused(tmp_path):
    for told in ({"accumulation": 3}, {"processes": 2}):
        collator = RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE, **told)
        name, number = next(iter(told.items()))
        with pytest.raises(ValueError, match=f"{name}={number}, but TrainingArguments say"):
            RandomMaskTrainer(model(), arguments(tmp_path, gradient_accumulation_steps=2), data_collator=collator)
    untouched = RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE)
    RandomMaskTrainer(model(), arguments(tmp_path, gradient_accumulation_steps=2), data_collator=untouched)
    assert untouched.accumulation == 1


def test_no_training_data_is_named(tmp_path):
    trainer = RandomMaskTrainer(
        model(), arguments(tmp_path), data_collator=RandomMaskCollator(KmerTokenizer(k=K), schedule=SCHEDULE)
    )
    with pytest.raises(ValueError, match="no train_dataset"):
        trainer.get_train_dataloader()


def test_switched_off_it_is_dnabert_bit_for_bit(tmp_path):
    """Invariant 1: the schedule of one width equals the fixed width."""
    flat = MaskSchedule(k=K, widths=(K,), milestones=(0,), total_steps=STEPS)
    runs = [
        run(tmp_path, collator=RandomMaskCollator(KmerTokenizer(k=K), schedule=schedule), max_steps=3)[1]
        for schedule in (flat, K)
    ]
    assert same(*runs)
