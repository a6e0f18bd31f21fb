"""Fine-tuning of a BERT over k-mers as a classifier on [CLS], through the transformers Trainer.

AdamW, linear warm-up and decay; after each epoch the dev set is scored, and the weights of the epoch with the lowest dev loss are
kept beside the last ones: dev loss often picks an early epoch, so both are reported.

Letters   N rows, T tokens, K classes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from randommask.models.presets import SizeName, bert_config
from randommask.models.starts import StartName, start_weights
from randommask.tokenizer import KmerTokenizer
from randommask.training.classification import Score, score
from randommask.training.pretraining import Placement
from scarce_common_utils.checkpoints import adopt_folder
from scarce_common_utils.errors import UserError
from scarce_common_utils.progress import Progress
from scarce_common_utils.streams import stream

_BEST = "best.pt"


class Encoded(Dataset):
    """Tokenised rows: `input_ids` and `attention_mask` Int64[N T], `labels` Int64[N]."""

    def __init__(self, sequences: Sequence[str], classes: Tensor, tokenizer: KmerTokenizer) -> None:
        batch = tokenizer(list(sequences), padding=True, return_tensors="pt")
        self.input_ids, self.attention_mask, self.labels = batch["input_ids"], batch["attention_mask"], classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """One row as a dict."""
        return {
            "input_ids": self.input_ids[row],
            "attention_mask": self.attention_mask[row],
            "labels": self.labels[row],
        }


class Tuned(NamedTuple):
    """Weights to report: `chosen` by dev loss at `epoch` (from 1), and `history` as (epoch, dev loss, dev MCC)."""

    chosen: dict[str, Tensor]
    epoch: int
    history: list[tuple[float, float, float]]


class Tuning(NamedTuple):
    """How it is trained; `steps` None for `epochs`."""

    epochs: int
    steps: int | None
    batch_size: int
    learning_rate: float
    warm_up_share: float = 0.1
    weight_decay: float = 0.01


def scratch_classifier(
    size: SizeName, *, k: int, start: StartName, labels: Sequence[str], dropout: float, seed: int
) -> tuple[BertForSequenceClassification, KmerTokenizer]:
    """A classifier that has seen nothing, of one of the two starts."""
    config = _with_labels(bert_config(size, k=k, hidden_dropout=dropout), labels)
    model = BertForSequenceClassification(config)
    start_weights(model, start, k=k, seed=seed)
    return model, KmerTokenizer(k=k, model_max_length=config.max_position_embeddings)


def pretrained_classifier(
    folder: Path, *, labels: Sequence[str], dropout: float, seed: int
) -> tuple[BertForSequenceClassification, KmerTokenizer]:
    """A classifier over a pretrained encoder; pooler and classifier begin from `stream(seed, "init")`.

    Raises:
        UserError: the folder is missing, or holds no BERT or no k-mer vocabulary.
    """
    for name in ("config.json", "vocab.txt"):
        if not (folder / name).is_file():
            raise UserError(
                f"--model is {folder}, which holds no {name}. Give the model/ folder of a pretraining run, or a folder with a "
                "BERT and DNABERT's vocab.txt."
            )
    try:
        tokenizer = KmerTokenizer.from_pretrained(folder)
        config = BertConfig.from_pretrained(folder)
        config.hidden_dropout_prob = dropout
        config.classifier_dropout = dropout
        model = BertForSequenceClassification.from_pretrained(
            folder, config=_with_labels(config, labels), dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--model is {folder}, which cannot be loaded: {str(error).splitlines()[0]}") from error
    if config.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"--model is {folder}, whose config.json has {config.vocab_size} tokens and whose vocab.txt has {tokenizer.vocab_size}."
        )
    assert model.bert.pooler is not None
    generator = stream(seed, "init")
    with torch.no_grad():
        for layer in (model.bert.pooler.dense, model.classifier):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * config.initializer_range)
            layer.bias.zero_()
    tokenizer.model_max_length = config.max_position_embeddings
    return model, tokenizer


def finetune(
    model: BertForSequenceClassification,
    train: Encoded,
    dev: Encoded,
    *,
    tuning: Tuning,
    placement: Placement,
    log: Callable[..., None],
    checkpoints: Path,
    seed: int,
    resume_from: Path | None = None,
) -> Tuned:
    """Train `model` in place to its last step; the weights of the best dev epoch are returned beside.

    Args:
        model: a classifier of K classes.
        train: rows to learn from, shuffled each epoch.
        dev: rows scored after each epoch.
        tuning: epochs or steps, and the optimizer's numbers.
        placement: device, precision, workers.
        log: called as `log(step, **numbers)` after each epoch.
        checkpoints: folder that the Trainer's checkpoints are moved into, one an epoch.
        seed: of order and dropout.
        resume_from: a checkpoint folder to go on from.
    """
    scratch = checkpoints / "trainer"
    steps_an_epoch = -(-len(train) // tuning.batch_size)
    total = tuning.steps or tuning.epochs * steps_an_epoch
    arguments = _arguments(scratch, tuning=tuning, placement=placement, total=total, seed=seed)
    begun = 0 if resume_from is None else int(resume_from.name.removeprefix("step-"))
    with Progress(total, "steps", label="randommask", start=begun) as bar:
        watcher = _Watcher(dev, log=log, checkpoints=checkpoints, bar=bar, placement=placement)
        if resume_from is not None:
            watcher.load(resume_from / _BEST)
        trainer = Trainer(model, arguments, train_dataset=train, callbacks=[watcher])
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean over the batch, not a sum already divided
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    if scratch.is_dir() and not any(scratch.iterdir()):
        scratch.rmdir()
    return watcher.tuned()


def predict(model: Any, rows: Encoded, *, autocast: torch.dtype | None = None, batch_size: int = 128) -> Score:
    """Score a classifier on all rows; its mode is left as it was."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    logits = []
    with torch.no_grad(), torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            ids, attention = rows.input_ids[part].to(device), rows.attention_mask[part].to(device)
            logits.append(model(input_ids=ids, attention_mask=attention).logits.float().cpu())
    model.train(training)
    return score(torch.cat(logits), rows.labels)


def _with_labels(config: BertConfig, labels: Sequence[str]) -> BertConfig:
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    return config


def _arguments(folder: Path, *, tuning: Tuning, placement: Placement, total: int, seed: int) -> TrainingArguments:
    device = placement.device
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=tuning.batch_size,
        learning_rate=tuning.learning_rate,
        warmup_steps=round(tuning.warm_up_share * total),
        lr_scheduler_type="linear",
        weight_decay=tuning.weight_decay,
        max_grad_norm=1.0,
        logging_strategy="epoch",
        save_strategy="epoch",
        use_cpu=device.type == "cpu",
        bf16=placement.precision == "bf16",
        fp16=placement.precision == "fp16",
        dataloader_num_workers=placement.workers,
        dataloader_pin_memory=device.type == "cuda",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one device: several would be wrapped in DataParallel
    return arguments


class _Watcher(TrainerCallback):
    """Scores the dev set after each epoch, keeps the best weights, moves checkpoints into the run folder."""

    def __init__(
        self, dev: Encoded, *, log: Callable[..., None], checkpoints: Path, bar: Progress, placement: Placement
    ) -> None:
        self.dev, self.log, self.checkpoints, self.bar, self.placement = dev, log, checkpoints, bar, placement
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.history: list[tuple[float, float, float]] = []

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.best, self.history = state["best"], state["history"]

    def tuned(self) -> Tuned:
        assert self.best is not None, "no epoch was scored"
        return Tuned(self.best[2], self.best[1], self.history)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        shown = {"dev_mcc": self.history[-1][2]} if self.history else {}
        self.bar.advance(1, **shown)

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        found = predict(model, self.dev, autocast=self.placement.autocast)
        epoch = len(self.history) + 1
        self.history.append((float(state.epoch or epoch), found.loss, found.mcc))
        self.log(state.global_step - 1, epoch=float(state.epoch or epoch), dev_loss=found.loss, dev_mcc=found.mcc)
        if self.best is None or found.loss < self.best[0]:
            weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            self.best = (found.loss, epoch, weights)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        source = self.checkpoints / "trainer" / f"checkpoint-{state.global_step}"
        torch.save({"best": self.best, "history": self.history}, source / _BEST)
        adopt_folder(source, self.checkpoints, step=state.global_step)
