"""Fine-tuning of an encoder as a classifier or a regression on [CLS], through the transformers Trainer.

AdamW, linear warm-up and decay; after each epoch the dev set is scored, and the weights of the epoch with the lowest dev loss are
kept beside the last ones: dev loss often picks an early epoch, so both are reported.

Letters   N rows, P pieces, T tokens, K classes.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import IntervalStrategy

from randommask.training.chunking import collate_pieces, even_pieces, pooled
from randommask.training.classification import Score, score
from randommask.training.encoders import specials_of
from randommask.training.pretraining import Placement, pickles_refused
from randommask.training.processes import share_of_batch
from randommask.training.quiet import quiet_transformers
from randommask.training.regression import Fit, fit
from randommask.training.step_clock import STEPS, StepClock
from scarce_common_utils.checkpoints import adopt_folder
from scarce_common_utils.costs import Cost
from scarce_common_utils.errors import UserError
from scarce_common_utils.progress import Progress

_BEST = "best.pt"


class Encoded(Dataset):
    """Tokenised rows, each in one piece or several (`chunking`): `pieces`, arrays of ids with specials, and `labels`."""

    def __init__(self, sequences: Sequence[str], targets: Tensor, tokenizer: Any, *, config: Any) -> None:
        self.specials = specials_of(tokenizer, config)
        self.labels = targets
        self.pieces: list[list[numpy.ndarray]] = []
        for start in range(0, len(sequences), 1024):
            part = list(sequences[start : start + 1024])
            with quiet_transformers():  # it would warn of rows that are cut below
                rows = tokenizer(part, add_special_tokens=False, return_attention_mask=False)["input_ids"]
            self.pieces += [self._cut(row) for row in rows]

    @property
    def cut(self) -> int:
        """Rows that are longer than the model."""
        return sum(len(pieces) > 1 for pieces in self.pieces)

    def _cut(self, row: Sequence[int]) -> list[numpy.ndarray]:
        front, behind, _, most = self.specials
        return [
            numpy.array([*front, *row[start:stop], *behind], dtype=numpy.int32)
            for start, stop in even_pieces(len(row), most=most)
        ]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row as a dict."""
        return {"pieces": self.pieces[row], "labels": self.labels[row]}

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch of rows; see `collate_pieces`."""
        return collate_pieces(rows, pad=self.specials.pad)


class Scale(NamedTuple):
    """`mean` and `std` of a regression's training targets: the model predicts in their units."""

    mean: float
    std: float


class Tuned(NamedTuple):
    """Weights to report: `chosen` by dev loss at evaluation `epoch` (from 1), and `history` as (epoch, dev loss, dev MCC or Pearson)."""

    chosen: dict[str, Tensor]
    epoch: int
    history: list[tuple[float, float, float]]


class Tuning(NamedTuple):
    """How it is trained; `steps` None for `epochs`, `warm_up_steps` None for the share, `evaluate_every` None for each epoch."""

    epochs: int
    steps: int | None
    batch_size: int
    learning_rate: float
    warm_up_share: float = 0.1
    weight_decay: float = 0.01
    warm_up_steps: int | None = None
    evaluate_every: int | None = None


def finetune(
    model: Any,
    train: Encoded,
    dev: Encoded,
    *,
    tuning: Tuning,
    placement: Placement,
    log: Callable[..., None],
    checkpoints: Path,
    seed: int,
    scale: Scale | None = None,
    resume_from: Path | None = None,
) -> Tuned:
    """Train `model` in place to its last step; the weights of the best dev epoch are returned beside.

    Several processes share each batch; an epoch's last one, where rows run out, is filled up with the epoch's first. The first
    process alone logs and keeps checkpoints.

    Args:
        model: a classifier of K classes, or of one number.
        train: rows to learn from, shuffled each epoch.
        dev: rows scored after each epoch.
        tuning: epochs or steps, and the optimizer's numbers.
        placement: device, precision, workers.
        log: called as `log(step, **numbers)` after each epoch.
        checkpoints: folder that the Trainer's checkpoints are moved into, one an epoch.
        seed: of order and dropout.
        scale: of the targets of a regression; None for classes.
        resume_from: a checkpoint folder to go on from.

    Raises:
        UserError: the dev loss is no longer a number; the step is named, the last good checkpoint stays.
    """
    scratch = checkpoints / "trainer"
    steps_an_epoch = -(-len(train) // tuning.batch_size)
    total = tuning.steps or tuning.epochs * steps_an_epoch
    arguments = _arguments(scratch, tuning=tuning, placement=placement, total=total, seed=seed)
    begun = 0 if resume_from is None else int(resume_from.name.removeprefix("step-"))
    with Progress(total, "steps", label="randommask", start=begun) as bar:
        watcher = _Watcher(
            dev,
            log=log,
            checkpoints=checkpoints,
            bar=bar,
            placement=placement,
            scale=scale,
            every=tuning.evaluate_every,
        )
        if resume_from is not None:
            with pickles_refused(resume_from):
                watcher.load(resume_from / _BEST)
        trainer = _PoolingTrainer(
            model, arguments, data_collator=train.collate, train_dataset=train, callbacks=[watcher]
        )
        trainer.scale = scale
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean over the batch, not a sum already divided
        trainer.remove_callback(PrinterCallback)
        with pickles_refused(resume_from):
            trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    with suppress(OSError):  # holds something, or another process was first
        scratch.rmdir()
    return watcher.tuned()


def measure_steps(
    model: Any, train: Encoded, *, tuning: Tuning, placement: Placement, seed: int, scale: Scale | None
) -> Cost:
    """Cost of a step, measured on a few that are trained as `finetune` does and forgotten; nothing is written but a folder for a moment."""
    clock = StepClock(placement.device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(Path(folder), tuning=tuning, placement=placement, total=STEPS, seed=seed)
        arguments.save_strategy = IntervalStrategy.NO
        trainer = _PoolingTrainer(model, arguments, data_collator=train.collate, train_dataset=train, callbacks=[clock])
        trainer.scale = scale
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.cost()


def predict(
    model: Any, rows: Encoded, *, autocast: torch.dtype | None = None, batch_size: int = 128, scale: Scale | None = None
) -> Score | Fit:
    """Score a model on all rows; its mode is left as it was. `scale` makes it a regression."""
    return scored(logits_of(model, rows, autocast=autocast, batch_size=batch_size), rows.labels, scale=scale)


def scored(logits: Tensor, labels: Tensor, *, scale: Scale | None = None) -> Score | Fit:
    """Score of logits Float32[N K], or of a regression's one number a row in the units of `scale`."""
    return score(logits, labels) if scale is None else fit(logits[:, 0] * scale.std + scale.mean, labels)


def logits_of(model: Any, rows: Encoded, *, autocast: torch.dtype | None = None, batch_size: int = 128) -> Tensor:
    """Float32[N K] on the CPU: mean over the pieces of each row."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    found = []
    with torch.no_grad(), torch.autocast(device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        for start in range(0, len(rows), batch_size):
            some = [rows[row] for row in range(start, min(start + batch_size, len(rows)))]
            batch = {name: value.to(device) for name, value in rows.collate(some).items()}
            out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            found.append(pooled(out, batch["rows"], count=len(some)).cpu())
    model.train(training)
    return torch.cat(found)


class _PoolingTrainer(Trainer):
    """Trainer whose loss is that of the rows, not of their pieces."""

    scale: Scale | None = None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        labels = inputs["labels"]
        logits = pooled(outputs.logits, inputs["rows"], count=len(labels))
        if self.scale is None:
            loss = torch.nn.functional.cross_entropy(logits, labels)
        else:
            loss = torch.nn.functional.mse_loss(logits[:, 0], (labels - self.scale.mean) / self.scale.std)
        return (loss, outputs) if return_outputs else loss


def unscale(model: Any, scale: Scale) -> None:
    """Let the model's last linear layer predict in the units of the targets."""
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(scale.std)
        if last.bias is not None:
            last.bias.mul_(scale.std).add_(scale.mean)


def headline(found: Score | Fit) -> float:
    """The one number of a score: MCC of a classifier, Pearson's correlation of a regression."""
    return found.mcc if isinstance(found, Score) else found.pearson


def _arguments(folder: Path, *, tuning: Tuning, placement: Placement, total: int, seed: int) -> TrainingArguments:
    device = placement.device
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=share_of_batch(tuning.batch_size),
        learning_rate=tuning.learning_rate,
        warmup_steps=round(tuning.warm_up_share * total) if tuning.warm_up_steps is None else tuning.warm_up_steps,
        lr_scheduler_type="linear",
        weight_decay=tuning.weight_decay,
        max_grad_norm=1.0,
        logging_strategy="epoch",
        save_strategy="epoch" if tuning.evaluate_every is None else "no",
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        bf16=placement.precision == "bf16",
        fp16=placement.precision == "fp16",
        dataloader_num_workers=placement.workers,
        dataloader_pin_memory=device.type == "cuda",
        report_to="none",
        disable_tqdm=True,
        log_level_replica="error",  # the Trainer would raise it to warnings in all processes but the first
        seed=seed,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one device: several would be wrapped in DataParallel
    return arguments


class _Watcher(TrainerCallback):
    """Scores the dev set after each epoch (or every so many steps), keeps the best weights, moves checkpoints into the run folder."""

    def __init__(
        self,
        dev: Encoded,
        *,
        log: Callable[..., None],
        checkpoints: Path,
        bar: Progress,
        placement: Placement,
        scale: Scale | None,
        every: int | None,
    ) -> None:
        self.dev, self.log, self.checkpoints, self.bar, self.placement = dev, log, checkpoints, bar, placement
        self.scale, self.every = scale, every
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.history: list[tuple[float, float, float]] = []

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.best, self.history = state["best"], state["history"]

    def tuned(self) -> Tuned:
        assert self.best is not None, "no epoch was scored"
        return Tuned(self.best[2], self.best[1], self.history)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.every is not None and (state.global_step % self.every == 0 or state.global_step == state.max_steps):
            self._score(state, model)
        shown = {self._name: self.history[-1][2]} if self.history else {}
        self.bar.advance(1, **shown)

    def on_epoch_end(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.every is None:
            self._score(state, model)

    @property
    def _name(self) -> str:
        return "dev_mcc" if self.scale is None else "dev_pearson"

    def _score(self, state: TrainerState, model: Any) -> None:
        found = predict(model, self.dev, autocast=self.placement.autocast, scale=self.scale)
        if not math.isfinite(found.loss):
            raise UserError(
                f"The dev loss is {found.loss} after step {state.global_step}. The last good checkpoint is kept; go on with a "
                "smaller learning rate in a new run."
            )
        number = len(self.history) + 1
        epoch = float(state.epoch or number)
        self.history.append((epoch, found.loss, headline(found)))
        if state.is_world_process_zero:
            self.log(state.global_step - 1, epoch=epoch, dev_loss=found.loss, **{self._name: headline(found)})
        if self.best is None or found.loss < self.best[0]:
            weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            self.best = (found.loss, number, weights)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        args.distributed_state.wait_for_everyone()  # until each process has put its random state in
        if not state.is_world_process_zero:
            return
        source = self.checkpoints / "trainer" / f"checkpoint-{state.global_step}"
        torch.save({"best": self.best, "history": self.history}, source / _BEST)
        # A pickle that names folders of this machine; nothing reads it.
        (source / "training_args.bin").unlink(missing_ok=True)
        adopt_folder(source, self.checkpoints, step=state.global_step)
