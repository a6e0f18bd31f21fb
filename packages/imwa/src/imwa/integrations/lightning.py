"""IMWA in Lightning: a callback that trains M replicas in turn within one fit, and the loader that feeds each its batches.

    imwa = IMWACallback(replicas=3, episodes=10)
    trainer = lightning.Trainer(max_steps=STEPS, callbacks=[imwa])
    trainer.fit(model, imwa.loader(loader))

The Trainer's limits describe one replica's whole schedule (T steps); the callback makes the loop run M * T, and puts the
limits back behind it. `trainer.global_step`, epochs, logging, validation and checkpoints count the loop; learning rates
follow the replica's own step, and `callback.turns.place` tells which that was. What is validated and saved right behind an
episode's end is the average, elsewhere the replica under way.
Batches   those of `Replica.batches`: each replica's own order, a pure function of (seed, replica, step).
Resume    `trainer.fit(ckpt_path=...)`: the callback's part of a checkpoint is the driver's whole state, so it goes on to the
          same bits from wherever it was saved between two steps.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from imwa.batches import replica_batches
from imwa.driver import IMWA
from imwa.integrations.turns import Settings, Turns
from imwa.replica import Steps

OTHER_AVERAGES = ("StochasticWeightAveraging", "WeightAveraging", "GradientAccumulationScheduler")


class IMWACallback(lightning.Callback):
    """Turns the replicas; the settings are those of `imwa.IMWA`.

    Args:
        replicas: M. The cost is M times the Trainer's own steps.
        episodes: E, number of averages.
        seed: of the replicas' random streams.
        optimizer_state: "average", "local" or "reset". Under the first two one replica is the plain fit over replica 0's batches.
        carry: objects to rewind beside schedulers and gradient scaler, which are carried by themselves.
        average: objects whose state is averaged with the module's (an EMA).
        after_average: called as `after_average(episode, module)` on every average.
        batch_norm: "average" or "pooled".
        on_nan: "stop" or "leave out".

    Attributes:
        turns: the fit under way, or the last one; its `place` is that of the last step.

    Raises:
        ValueError: at the beginning of a fit, before the first step: what is not served (manual optimization, several
            devices, schedules by epoch or by metric, accumulation that does not divide an epoch, other averages, no limit of
            steps, a loader that is not `loader(...)`'s); named. A checkpoint taken within a step, or of other settings.
    """

    def __init__(
        self,
        *,
        replicas: int = 3,
        episodes: int = 10,
        seed: int = 0,
        optimizer_state: str = "average",
        carry: Mapping[str, Any] | None = None,
        average: Mapping[str, Any] | None = None,
        after_average: Callable[[int, torch.nn.Module], None] | None = None,
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
            batch_norm=batch_norm,
            on_nan=on_nan,
        )
        self.turns: Turns | None = None
        self.position = 0  # steps of the loop that are done
        self.accumulation = 1  # micro-batches a step
        self._micro_batches = 0  # of the step under way
        self._loaded: dict[str, Any] | None = None
        self._limits: tuple[int, int | None] | None = None

    @property
    def iterative(self) -> IMWA | None:
        """The driver, once training has begun."""
        return None if self.turns is None else self.turns.iterative

    def loader(self, loader: "DataLoader[Any]") -> "TurnLoader":
        """The loader to give to `trainer.fit`: the same batch size and data, in the order of the replicas' turns."""
        return TurnLoader(loader, self)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Refuse what is not served, and make the loop long enough for all replicas."""
        _refuse(trainer, pl_module, replicas=self.settings.replicas)
        steps = trainer.estimated_stepping_batches
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"The Trainer has no limit that gives a number of steps (it estimates {steps}), and the episodes' length "
                "follows from it. Give Trainer(max_steps=...) or max_epochs."
            )
        self.turns, self.accumulation = Turns(self.settings, steps=steps), trainer.accumulate_grad_batches
        self.position = self._micro_batches = 0
        self._limits = (trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs)
        trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs = self.turns.total, -1

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The module's state is the first start, unless a checkpoint was loaded."""
        assert self.turns is not None
        _refuse_loader(trainer, self)
        carry = {f"scheduler {number}": item.scheduler for number, item in enumerate(trainer.lr_scheduler_configs)}
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        carry.update({} if scaler is None else {"scaler": scaler})
        state = None
        if self._loaded is not None:
            state, self.position = self._loaded["iterative"], self._loaded["position"]
            self._loaded = None
        self.turns.start(pl_module, trainer.optimizers[0], carry=carry, state=state)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A replica's turn may begin."""
        assert self.turns is not None
        if self._micro_batches == 0:
            self.turns.begin_step()
        self._micro_batches += 1

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a batch: where it was a real optimizer step, count it; an episode may end."""
        assert self.turns is not None
        if self._micro_batches == self.accumulation:
            self._micro_batches = 0
            self.position += 1
            self.turns.end_step()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Say what the module holds, where training was stopped early."""
        assert self.turns is not None
        self.turns.end()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """The Trainer's limits are its own again."""
        self._put_back(trainer)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """The Trainer's limits are its own again."""
        self._put_back(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The driver's whole state, for Lightning's checkpoint."""
        if self.iterative is None:
            return self._loaded or {}
        return {
            "iterative": self.iterative.state_dict(),
            "position": self.position,
            "micro_batches": self._micro_batches,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training begins, when there is a driver to load it into.

        Raises:
            ValueError: it was taken within a step, and the gradients that were gathered are in no checkpoint.
        """
        if state_dict.get("micro_batches"):
            raise ValueError(
                f"The checkpoint was taken within step {state_dict['position']} of the loop, after {state_dict['micro_batches']} of "
                "its micro-batches, whose gradients it does not hold. Resume from one taken behind a step."
            )
        self._loaded = state_dict or None

    def _put_back(self, trainer: lightning.Trainer) -> None:
        self._loaded = None
        if self._limits is not None:
            trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs = self._limits
            self._limits = None
        if self.turns is not None:
            self.turns.ended = True


class TurnLoader:
    """A DataLoader's batches in the order of the replicas' turns, from where the fit stands; outside a fit its own.

    Lightning begins a new iteration with each of its epochs and never reads ahead of a step, since the length is known.
    """

    def __init__(self, loader: "DataLoader[Any]", callback: IMWACallback) -> None:
        self.plain = loader
        self.callback = callback

    def __len__(self) -> int:
        return len(self.plain)

    def __iter__(self) -> Iterator[Any]:
        turns = self.callback.turns
        if turns is None or turns.ended:
            yield from self.plain
            return
        each, position = self.callback.accumulation, self.callback.position
        while position < turns.total:
            place = turns.at(position)
            stop = turns.plan.border(place.episode + 1)
            own = Steps(place.step * each, stop * each, following=place.step * each)
            for _, batch in replica_batches(self.plain, steps=own, seed=turns.seed, replica=place.replica):
                yield batch
            position += stop - place.step

    def state_dict(self) -> dict[str, Any]:
        """Empty: where the fit stands is in the callback's state. With it Lightning knows that the loader can go on."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""


def _refuse(trainer: lightning.Trainer, module: lightning.LightningModule, *, replicas: int) -> None:
    """Name what the replicas' turns are not right with."""
    if not module.automatic_optimization:
        raise ValueError(
            f"{type(module).__name__} has automatic_optimization = False, and where its steps end is known to itself alone. Use "
            "automatic optimization, or imwa.IMWA around a loop of your own."
        )
    if not isinstance(trainer.strategy, SingleDeviceStrategy) or trainer.world_size > 1:
        raise ValueError(
            f"The strategy is {type(trainer.strategy).__name__} on {trainer.world_size} devices, and replicas take turns on one. Give "
            "Trainer(devices=1), or imwa.IMWA(group=...) around a loop of your own."
        )
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue] (a connector sets it)
        named = [kind.__name__ for kind in type(callback).__mro__ if kind.__name__ in OTHER_AVERAGES]
        if named:
            raise ValueError(
                f"The callback {named[0]} counts steps of one run, and the loop runs {replicas} replicas in turn. Leave it out; "
                "an EMA goes into IMWACallback(average={...})."
            )
    if replicas == 1:
        return
    for item in trainer.lr_scheduler_configs:
        if item.interval != "step" or item.frequency != 1 or item.reduce_on_plateau:
            kind = "a metric" if item.reduce_on_plateau else f"every {item.frequency} {item.interval}"
            raise ValueError(
                f"The schedule {type(item.scheduler).__name__} moves by {kind}, of the loop and not of a replica. Return it as "
                '{"scheduler": ..., "interval": "step"} from configure_optimizers, over one replica\'s steps.'
            )


def _refuse_loader(trainer: lightning.Trainer, callback: IMWACallback) -> None:
    loader = trainer.train_dataloader
    if not isinstance(loader, TurnLoader) or loader.callback is not callback:
        raise ValueError(
            f"The training loader is a {type(loader).__name__}, and every replica would read its batches in turn. Give "
            "trainer.fit(model, callback.loader(loader))."
        )
    if trainer.num_training_batches % callback.accumulation:
        raise ValueError(
            f"accumulate_grad_batches is {callback.accumulation} and an epoch has {trainer.num_training_batches} batches, so its "
            "last step is shorter, and replicas end their epochs elsewhere. Choose a number that divides, or drop_last=True."
        )
