"""A transformers Trainer whose batches carry their number, so that each is masked at the width of its own optimizer step.

What differs from Trainer: training batches come from `NumberedBatches` in one pass over the whole run; the loss is the sum over
the masked tokens of the whole optimizer step divided by their number, for MaskedBert and for any masked-language model;
evaluation uses a fixed width; the log holds the mask's width, the masked share and the hidden bases a masked token.

Letters   N sequences, T tokens, M masked tokens, V vocabulary.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import SAFE_WEIGHTS_NAME

from randommask.collator import RandomMaskCollator
from randommask.identities import count_hidden
from randommask.masking import IGNORED
from randommask.models.masked_bert import MaskedBert, masked_loss
from randommask.numbering import NumberedBatches
from scarce_common_utils.errors import UserError
from scarce_common_utils.fitting import refuse_unfitting


class RandomMaskTrainer(Trainer):
    """Trainer for masked-language modelling with `RandomMaskCollator`.

    Args:
        model: `MaskedBert`, or any model that gives `logits` Float[N T V] from `input_ids` and `attention_mask`.
        args: TrainingArguments; a copy is used, with `max_steps` worked out from the epochs where it is not given.
        data_collator: a `RandomMaskCollator`; a copy is used that knows the accumulation and the processes of `args`.
        train_dataset: map-style; examples that the collator takes.
        eval_dataset: likewise, or a dict of them.
        eval_width: mask width in evaluation; None for the schedule's last.
        shuffle: false deals the examples in their own order, for data that are drawn by number already.
        processing_class: the tokenizer, saved with checkpoints.
        compute_metrics: as in Trainer.
        callbacks: as in Trainer.
        optimizers: as in Trainer.

    Raises:
        ValueError: the collator was told another accumulation or number of processes than `args`; both are named.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        *,
        data_collator: RandomMaskCollator,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        eval_width: int | None = None,
        shuffle: bool = True,
        processing_class: Any = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        args = copy.copy(args)
        args.remove_unused_columns = False  # the collator reads columns that no model takes
        args.prediction_loss_only = compute_metrics is None
        if args.max_steps <= 0 and train_dataset is not None:
            step_size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            args.max_steps = math.ceil(args.num_train_epochs * len(train_dataset) / step_size)
        collator = _told(data_collator, accumulation=args.gradient_accumulation_steps, processes=args.world_size)
        super().__init__(
            model,
            args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.collator = collator
        self.shuffle = shuffle
        schedule = collator.schedule
        self.eval_width = eval_width or (
            schedule if isinstance(schedule, int) else schedule.width(schedule.total_steps)
        )
        # The Trainer then counts the masked tokens of a whole optimizer step and does not divide by the accumulation.
        self.model_accepts_loss_kwargs = True
        self._counts: Tensor | None = None
        self._width: Tensor | None = None
        self._losses: Tensor | None = None
        self._logged_step = 0

    def get_train_dataloader(self) -> DataLoader:
        """Loader of numbered batches, one pass of max_steps x accumulation x processes of them."""
        if self.train_dataset is None:
            raise ValueError("RandomMaskTrainer has no train_dataset. Give one, or only evaluate.")
        args = self.args
        batches = NumberedBatches(
            self.train_dataset,
            batch_size=self._train_batch_size,
            batches=args.max_steps * args.gradient_accumulation_steps * args.world_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=self.shuffle,
        )
        workers = args.dataloader_num_workers
        loader = DataLoader(
            batches.dataset,
            batch_sampler=batches,
            collate_fn=self.collator,
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor if workers else None,
        )
        return self.accelerator.prepare(loader)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Trainer's own, with the collator at the fixed evaluation width."""
        self.data_collator = self.collator.at_width(self.eval_width)
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = self.collator

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the masked tokens' losses over `num_items_in_batch`; see the module."""
        batch = dict(inputs)
        if model.training:
            self._count(batch)
        if isinstance(self.accelerator.unwrap_model(model), MaskedBert):
            if self.args.n_gpu > 1:  # DataParallel would cut these along the wrong axis
                batch.pop("masked_positions", None)
                batch.pop("mask_width", None)
            return super().compute_loss(model, batch, return_outputs, num_items_in_batch)
        positions = batch.pop("masked_positions")
        targets = batch.pop("labels").reshape(-1).index_select(0, positions)
        batch.pop("mask_width", None)
        outputs = model(**batch)
        logits = outputs.logits.reshape(-1, outputs.logits.shape[-1]).index_select(0, positions)
        loss = masked_loss(logits, targets, count=num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *words: Any, **options: Any) -> Tensor:
        """Trainer's, whose loss is added up here too: the Trainer forgets its own sum when a run goes on from between two logs."""
        loss = super().training_step(*words, **options)
        if self._losses is None:
            self._losses, self._logged_step = loss, self.state.global_step
        else:
            self._losses = self._losses + loss
        return loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Refuse a checkpoint of another MaskedBert first: the Trainer passes over names that are missing, and casts other dtypes.

        Raises:
            UserError: names, shapes or dtypes differ; the differences are listed.
        """
        file = Path(resume_from_checkpoint) / SAFE_WEIGHTS_NAME
        if isinstance(self.model, MaskedBert) and file.is_file():  # others may be stored under other names
            try:
                refuse_unfitting(self.model.state_dict(), load_file(file), whose="its model")
            except ValueError as error:
                raise UserError(f"{file.parent} does not fit this run: {error} Start a new run.") from error
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def logging_state(self) -> dict[str, Any]:
        """What the next line of the log has to know of the steps since the last one: tensors and numbers."""
        return {
            "losses": self._losses,
            "counts": self._counts,
            "width": self._width,
            "logged_step": self._logged_step,
        }

    def load_logging_state(self, state: dict[str, Any]) -> None:
        """Go on from `logging_state`; called before `train`."""
        on_device = {name: value.to(self.args.device) for name, value in state.items() if isinstance(value, Tensor)}
        self._losses, self._counts, self._width = (on_device.get(name) for name in ("losses", "counts", "width"))
        self._logged_step = state.get("logged_step", 0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log with `mask_width`, and `masked_share` and `hidden_bases` over all processes since the last one."""
        if "loss" in logs and self._losses is not None:
            steps = self.state.global_step - self._logged_step
            if self.args.world_size == 1 and steps:  # several processes go on from lines of the log alone
                logs = logs | {"loss": self._losses.item() / steps}
            self._losses = None
        if "loss" in logs and self._counts is not None and self._width is not None:
            counts: Any = self.accelerator.reduce(self._counts)
            maskable, masked, hidden = counts.tolist()
            logs = logs | {
                "mask_width": int(self._width),
                "masked_share": masked / max(maskable, 1),
                "hidden_bases": hidden / max(masked, 1),
            }
            self._counts = None
        super().log(logs, start_time)

    def _count(self, batch: dict[str, Any]) -> None:
        """Add up, on the device, what this micro-batch masked; read back only when a line is logged."""
        if "labels" not in batch or "input_ids" not in batch:
            return
        tokenizer = self.collator.tokenizer
        masked = batch["labels"] != IGNORED
        maskable = masked | (batch["input_ids"] >= tokenizer.kmer_vocabulary.start)
        found = count_hidden(masked, maskable, k=tokenizer.k, overlap=tokenizer.overlap)
        counts = torch.stack((found.maskable, found.masked, found.bases)).double()
        self._counts = counts if self._counts is None else self._counts + counts
        self._width = batch.get("mask_width")


def _told(collator: RandomMaskCollator, *, accumulation: int, processes: int) -> RandomMaskCollator:
    """Copy of the collator that knows how many batches make an optimizer step."""
    for name, told, true in (
        ("accumulation", collator.accumulation, accumulation),
        ("processes", collator.processes, processes),
    ):
        if told not in (1, true):
            raise ValueError(
                f"The collator was made with {name}={told}, but TrainingArguments say {true}. Leave it out: the trainer sets it."
            )
    known = copy.copy(collator)
    known.accumulation, known.processes = accumulation, processes
    return known
