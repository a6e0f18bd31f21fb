"""Pretraining of a BERT over k-mers: DNABERT's optimizer through the transformers Trainer, with checkpoints, log and progress of ours.

AdamW, betas (0.9, beta2), eps 1e-6, weight decay 0.01 except bias and LayerNorm, gradient clipping 1.0, linear warm-up, then linear
decay to 0 at the last step.

Source    DNABERT's README and MultiMolecule's card: beta2 0.98, learning rate 4e-4, warm-up 10,000 of 200,000 steps. RandomMask's own
          settings are not known; the defaults of the command are ours.
"""

import math
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import IntervalStrategy

from randommask.collator import RandomMaskCollator
from randommask.genome.windows import GenomeWindows
from randommask.identities import UNIFORM_ENTROPY, count_hidden, masked_share
from randommask.masking import IGNORED
from randommask.numbering import NumberedExample
from randommask.schedule import MaskSchedule, Phase
from randommask.training.processes import share_of_batch
from randommask.training.step_clock import STEPS, StepClock
from randommask.training.trainer import RandomMaskTrainer
from scarce_common_utils.checkpoints import adopt_folder
from scarce_common_utils.costs import Cost
from scarce_common_utils.errors import UserError
from scarce_common_utils.finite import named, not_finite, refuse_not_finite
from scarce_common_utils.progress import Progress
from scarce_common_utils.signals import Stopped, StopRequest, stop_requests

_LOGGING = "logging.pt"  # in a checkpoint: what the log had gathered since its last line


class Optimisation(NamedTuple):
    """How the weights move: `steps` of `batch_size` x `accumulation` windows, of all processes together, and AdamW's numbers."""

    steps: int
    batch_size: int
    accumulation: int = 1
    learning_rate: float = 4e-4
    warm_up_share: float = 0.1
    beta2: float = 0.98
    weight_decay: float = 0.01


class Placement(NamedTuple):
    """Where it is computed: `device`, `precision` (float32, bf16, fp16) and loading `workers`."""

    device: torch.device
    precision: str = "float32"
    workers: int = 0

    @property
    def autocast(self) -> torch.dtype | None:
        """Type of the forward pass, None for float32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)


class Watch(NamedTuple):
    """What happens on the way: `log(step, **numbers)` every `log_every` steps, a checkpoint in `checkpoints` every `save_every`.

    The newest `keep` checkpoints stay.
    """

    log: Callable[..., None]
    checkpoints: Path
    log_every: int
    save_every: int
    keep: int = 2


def pretrain(
    model: Any,
    windows: GenomeWindows,
    *,
    collator: RandomMaskCollator,
    optimisation: Optimisation,
    placement: Placement,
    watch: Watch,
    resume_from: Path | None = None,
) -> None:
    """Train `model` in place; of several processes, which share each batch, the first alone logs and keeps checkpoints.

    Args:
        model: a `MaskedBert`; moved to the device.
        windows: dealt in the order of their numbers, or shuffled each pass where they are strided.
        collator: masks; told accumulation and processes by the trainer.
        optimisation: steps and optimizer.
        placement: device, precision, workers.
        watch: log and checkpoints. `save_every` is rounded up to a multiple of `log_every`.
        resume_from: a checkpoint folder to go on from.

    Raises:
        UserError: the loss is no longer a number; the step is named, the last good checkpoint stays.
        Stopped: a signal asked for it; one process keeps the step that was under way, several end at once.
    """
    scratch = watch.checkpoints / "trainer"
    arguments = training_arguments(
        scratch,
        optimisation=optimisation,
        placement=placement,
        log_every=watch.log_every,
        save_every=-(-watch.save_every // watch.log_every) * watch.log_every,
        seed=collator.seed,
    )
    begun = 0 if resume_from is None else int(resume_from.name.removeprefix("step-"))
    several = arguments.world_size > 1
    with (
        Progress(optimisation.steps, "steps", label="randommask", start=begun) as bar,
        nullcontext(StopRequest()) if several else stop_requests() as request,
    ):
        trainer = RandomMaskTrainer(
            model,
            arguments,
            data_collator=collator,
            train_dataset=windows,
            shuffle=windows.recipe == "strided",
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Watcher(watch, scratch, bar, request=request, logging=trainer.logging_state))
        with pickles_refused(resume_from):
            if resume_from is not None:
                trainer.load_logging_state(_logging_state(resume_from))
            trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    if trainer.is_world_process_zero() and scratch.is_dir() and not any(scratch.iterdir()):
        scratch.rmdir()
    if request.signal is not None and trainer.state.global_step < optimisation.steps:
        kept = f"Step {trainer.state.global_step} of {optimisation.steps} is kept"
        raise Stopped(request.signal, f"{kept}; --resume with the run folder goes on from it.")


def measure_steps(
    model: Any,
    windows: GenomeWindows,
    *,
    collator: RandomMaskCollator,
    optimisation: Optimisation,
    placement: Placement,
) -> Cost:
    """Cost of a step, measured on a few that are trained as `pretrain` does and forgotten; nothing is written but a folder for a moment.

    Args:
        model: moved to the device, and trained.
        windows: as in `pretrain`.
        collator: at a fixed width.
        optimisation: its number of steps is not used.
        placement: as there.
    """
    clock = StepClock(placement.device)
    with tempfile.TemporaryDirectory() as folder:
        few = optimisation._replace(steps=STEPS)
        arguments = training_arguments(
            Path(folder), optimisation=few, placement=placement, log_every=STEPS, save_every=STEPS, seed=collator.seed
        )
        arguments.save_strategy = IntervalStrategy.NO
        trainer = RandomMaskTrainer(
            model, arguments, data_collator=collator, train_dataset=windows, shuffle=windows.recipe == "strided"
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    return clock.cost()


@contextmanager
def pickles_refused(checkpoint: Path | None) -> Iterator[None]:
    """Of the Trainer's pickles torch reads tensors and numbers alone; one with anything else in it is refused by the checkpoint's name.

    Raises:
        UserError: there is such a file.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{checkpoint} holds a file with more than tensors and numbers in it, which no run writes and which is not read. Take the "
            "checkpoint away; the run then goes on from the one before it."
        ) from error


def _logging_state(checkpoint: Path) -> dict[str, Any]:
    """What the log had gathered when a checkpoint was taken; nothing, where the Trainer alone took it."""
    file = checkpoint / _LOGGING
    return torch.load(file, map_location="cpu", weights_only=True) if file.is_file() else {}


def training_arguments(
    folder: Path, *, optimisation: Optimisation, placement: Placement, log_every: int, save_every: int, seed: int
) -> TrainingArguments:
    """TrainingArguments of one run, on one device or on as many as there are processes."""
    device = placement.device
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=optimisation.steps,
        per_device_train_batch_size=share_of_batch(optimisation.batch_size),
        gradient_accumulation_steps=optimisation.accumulation,
        learning_rate=optimisation.learning_rate,
        warmup_steps=round(optimisation.warm_up_share * optimisation.steps),
        lr_scheduler_type="linear",
        weight_decay=optimisation.weight_decay,
        adam_beta2=optimisation.beta2,
        adam_epsilon=1e-6,
        max_grad_norm=1.0,
        logging_steps=log_every,
        logging_nan_inf_filter=False,
        save_steps=save_every,
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
    """Moves the bar, writes the log, stops on a loss that is no number or a signal, moves checkpoints into the run folder."""

    def __init__(
        self,
        watch: Watch,
        scratch: Path,
        bar: Progress,
        *,
        request: StopRequest,
        logging: Callable[[], dict[str, Any]],
    ) -> None:
        self.watch, self.scratch, self.bar = watch, scratch, bar
        self.request, self.logging = request, logging
        self.shown: dict[str, float] = {}

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.bar.advance(1, **self.shown)
        if self.request.asked:
            control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            places = not_finite(kept(model, optimizer))
            last = state.global_step * args.gradient_accumulation_steps * args.world_size - 1
            raise UserError(
                f"The loss is {logs['loss']} at step {state.global_step}. The last good checkpoint is kept; go on with a "
                f"smaller learning rate in a new run. The step's last batch was number {last}"
                f"{f'; not finite now: {named(places)}' if places else ''}."
            )
        numbers = {name: float(value) for name, value in logs.items() if name != "epoch"}
        if state.is_world_process_zero:
            self.watch.log(state.global_step - 1, **numbers)
        self.shown = {"loss": numbers["loss"], "width": numbers.get("mask_width", 0.0)}

    def on_save(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        source = self.scratch / f"checkpoint-{state.global_step}"
        try:
            refuse_not_finite(kept(model, optimizer), when=f"after step {state.global_step}")
        except UserError:
            shutil.rmtree(source, ignore_errors=True)
            raise
        args.distributed_state.wait_for_everyone()  # until each process has put its random state in
        if state.is_world_process_zero:
            torch.save(self.logging(), source / _LOGGING)
            # A pickle that names folders of this machine; nothing reads it.
            (source / "training_args.bin").unlink(missing_ok=True)
            adopt_folder(source, self.watch.checkpoints, step=state.global_step, keep=self.watch.keep)


def kept(model: Any, optimizer: Any) -> dict[str, Any]:
    """What a checkpoint holds of numbers that have to be finite; either may be None."""
    moments = {} if optimizer is None else optimizer.state_dict()["state"]
    return {"model": {} if model is None else model.state_dict(), "optimizer": moments}


class Expected(NamedTuple):
    """What one phase's masks do to some windows: the first `step`, `width`, `floor` in nats, closed-form and counted share."""

    step: int
    width: int
    floor: float
    closed_share: float
    counted_share: float


def expected_by_phase(windows: Sequence[Any], collator: RandomMaskCollator) -> list[Expected]:
    """Floor and masked share of each phase, on the given windows (base codes UInt8[L])."""
    schedule = collator.schedule
    phases = schedule.phases() if isinstance(schedule, MaskSchedule) else (Phase(schedule, 0),)
    k, overlap = collator.tokenizer.k, collator.tokenizer.overlap
    found = []
    for width, first in phases:
        number = first * collator.accumulation * collator.processes
        batch = collator([NumberedExample(number, window) for window in windows])
        masked = batch["labels"] != IGNORED
        maskable = masked | (batch["input_ids"] >= collator.tokenizer.kmer_vocabulary.start)
        counts = count_hidden(masked, maskable, k=k, overlap=overlap)
        drawn = schedule.draw_from(first) if isinstance(schedule, MaskSchedule) else width
        tokens = maskable.sum(1).tolist()
        shares = {n: masked_share(drawn, collator.probability_at(width), tokens=n) for n in set(tokens) if n}
        closed = sum(n * shares[n] for n in tokens if n) / max(sum(tokens), 1)
        share = int(counts.masked) / max(int(counts.maskable), 1)
        floor = float(counts.expected) * UNIFORM_ENTROPY / max(int(counts.masked), 1)
        found.append(Expected(first, width, floor, closed, share))
    return found
