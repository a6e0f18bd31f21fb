"""IMWA in transformers: `IMWATrainer` with an `IMWACallback` trains M replicas in turn within the Trainer's one loop.

    trainer = IMWATrainer(model, args, train_dataset=data, callbacks=[IMWACallback(replicas=3, episodes=10)])

The arguments describe one replica's whole schedule (T steps, by `max_steps` or `num_train_epochs`); the loop runs M * T
steps, and `state.global_step`, logging, evaluation and checkpoints count those. The learning rate follows the replica's own
step. Replica 0 reads the Trainer's own order of data, replica m that of a seed of its own. What is evaluated and saved
right behind an episode's end is the average, elsewhere the replica under way.

Why a subclass: a TrainerCallback turns the replicas, but it cannot say how many steps the loop runs, sees neither the
scheduler before it is built over them nor the loader, and learns of a checkpoint when an older one was deleted for it. Each
method that is overridden does one of these. With a Trainer of one's own: `class Mine(IMWATrainer, SFTTrainer): pass`.
Resume    `imwa.pt` in every checkpoint holds the driver's whole state (about three times model and optimizer), and
          `train(resume_from_checkpoint=...)` goes on to the same bits where the Trainer does: a collate function that draws
          draws anew for the batch that had been read ahead.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from imwa.driver import IMWA
from imwa.integrations.trainer_batches import in_turns
from imwa.integrations.trainer_checks import (
    one_trainer_per_process,
    refuse_accumulation,
    refuse_schedule,
    refuse_shared_folder,
    refuse_trainer,
)
from imwa.integrations.turns import Settings, Turns

__all__ = ["IMWACallback", "IMWATrainer", "one_trainer_per_process"]
FILE = "imwa.pt"


class IMWACallback(TrainerCallback):
    """Turns the replicas of an `IMWATrainer`; the settings are those of `imwa.IMWA`.

    Args:
        replicas: M. The cost is M times the Trainer's own steps.
        episodes: E, number of averages.
        seed: of the replicas' random streams; None takes the Trainer's.
        optimizer_state: "average", "local" or "reset". Under the first two one replica is the plain Trainer's run.
        carry: objects to rewind beside the scheduler and the gradient scaler, which are carried by themselves.
        average: objects whose state is averaged with the model's (an EMA).
        after_average: called as `after_average(episode, model)` on every average.
        group: an averaging group of torch.distributed, each process of which runs a Trainer of its own; see
            `one_trainer_per_process`. None trains all replicas here, in turn.
        deterministic: with a group, the bits of replicas in turn.
        batch_norm: "average" or "pooled".
        on_nan: "stop" or "leave out".

    Raises:
        ValueError: at the beginning of training, where a plain Trainer runs it, or a setting of `imwa.IMWA` is wrong.
    """

    def __init__(
        self,
        *,
        replicas: int = 3,
        episodes: int = 10,
        seed: int | None = None,
        optimizer_state: str = "average",
        carry: Mapping[str, Any] | None = None,
        average: Mapping[str, Any] | None = None,
        after_average: Callable[[int, torch.nn.Module], None] | None = None,
        group: Any = None,
        deterministic: bool = False,
        batch_norm: str = "average",
        on_nan: str = "stop",
    ) -> None:
        self.settings = Settings(
            replicas=replicas,
            episodes=episodes,
            seed=seed,
            optimizer_state=optimizer_state,
            carry=carry or {},
            average=average or {},
            after_average=after_average,
            group=group,
            deterministic=deterministic,
            batch_norm=batch_norm,
            on_nan=on_nan,
        )
        self.turns: Turns | None = None  # of the training under way, or the last one
        self._scaler: Any = None

    @property
    def iterative(self) -> IMWA | None:
        """The driver, once training has begun."""
        return None if self.turns is None else self.turns.iterative

    def begin(self, turns: Turns, *, scaler: Any) -> None:
        """A training begins; called by the IMWATrainer before anything is built, with accelerate's gradient scaler."""
        self.turns, self._scaler = turns, scaler

    def start(self, model: Any, optimizer: Any, scheduler: Any, *, state: Mapping[str, Any] | None = None) -> None:
        """All is built, and loaded where a checkpoint is resumed: `state` is the driver's."""
        assert self.turns is not None
        refuse_schedule(scheduler)
        carry = {"scheduler": scheduler, **({} if self._scaler is None else {"scaler": self._scaler})}
        self.turns.start(model, optimizer, carry=carry, state=state)

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The caller's state is the first start, unless a checkpoint was loaded."""
        if self.turns is None or self.turns.ended:
            raise ValueError(
                "IMWACallback is in a Trainer that does not know it: the loop would run as many steps as for one model. Use "
                "imwa.integrations.transformers.IMWATrainer, or with a Trainer of your own: class Mine(IMWATrainer, YourTrainer)."
            )
        if self.turns.iterative is None:
            self.start(others["model"], others["optimizer"], others["lr_scheduler"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A replica's turn may begin."""
        assert self.turns is not None
        self.turns.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """The step is done; an episode may end."""
        assert self.turns is not None
        self.turns.end_step()

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Say what the model holds, where training was stopped early."""
        assert self.turns is not None
        self.turns.end()


class IMWATrainer(Trainer):
    """A Trainer whose loop trains M replicas in turn; it needs an `IMWACallback` among its callbacks.

    Logs of a step bear `imwa_episode`, `imwa_step` (the replica's own) and `imwa_replica`; behind an episode's end the
    last is left out, since the live model is the average.

    Raises:
        ValueError: at the beginning of training, before anything is written: no `IMWACallback`, or something that is not
            served (several processes or GPUs as copies of one model, DeepSpeed, FSDP, a data set or sampler that cannot be
            cut at a step, accumulation that does not divide an epoch, schedules that follow metrics); named. At resume: a
            checkpoint without the driver's state, or of other settings.
    """

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The Trainer's loader; while it trains, batches come in the order of the replicas' turns."""
        refuse_trainer(self)
        loader, callback = super().get_train_dataloader(), self._callback()
        accumulation = self.args.gradient_accumulation_steps
        return self.accelerator.prepare(in_turns(loader, lambda: callback.turns, accumulation=accumulation))

    def set_initial_training_values(self, args: Any, dataloader: DataLoader[Any]) -> tuple[Any, ...]:
        """The loop runs M * T steps, T being what the Trainer makes of its arguments."""
        _, updates, examples, samples, size, batches, steps = super().set_initial_training_values(args, dataloader)
        callback = self._callback()
        settings = callback.settings
        if settings.seed is None:
            settings = dataclasses.replace(settings, seed=args.seed)
        refuse_accumulation(args.gradient_accumulation_steps, batches=batches, replicas=settings.replicas)
        if settings.group is not None:
            refuse_shared_folder(args.output_dir or ".", settings.group)
        turns = Turns(settings, steps=steps)
        callback.begin(turns, scaler=getattr(self.accelerator, "scaler", None))
        return -(-turns.total // updates), updates, examples, samples * len(turns.own), size, batches, turns.total

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule is one replica's."""
        turns = self._callback().turns
        if turns is not None and not turns.ended and num_training_steps == turns.total:
            num_training_steps = turns.plan.steps
        return super().create_scheduler(num_training_steps, optimizer)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Say whose numbers these are."""
        turns = self._callback().turns
        if turns is not None and turns.place is not None and not turns.ended:
            where = {"imwa_episode": turns.place.episode, "imwa_step": turns.place.step}
            logs = {**logs, **where, **({} if turns.averaged else {"imwa_replica": turns.place.replica})}
        super().log(logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        iterative = self._callback().iterative
        if iterative is not None:
            torch.save(iterative.state_dict(), os.path.join(output_dir, FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        callback = self._callback()
        if checkpoint is None or callback.turns is None:
            return
        file = os.path.join(checkpoint, FILE)
        if not os.path.isfile(file):
            raise ValueError(
                f"{checkpoint} holds no {FILE}: it is not a checkpoint of an IMWATrainer, or one of save_only_model=True. Give "
                "another in resume_from_checkpoint, or start anew."
            )
        state = torch.load(file, map_location="cpu", weights_only=True)
        callback.start(self.model, self.optimizer, self.lr_scheduler, state=state)

    def _callback(self) -> IMWACallback:
        found = [callback for callback in self.callback_handler.callbacks if isinstance(callback, IMWACallback)]
        if len(found) != 1:
            raise ValueError(
                f"IMWATrainer has {len(found)} IMWACallbacks among its callbacks. Give one: "
                "callbacks=[IMWACallback(replicas=3, episodes=10)]."
            )
        return found[0]
