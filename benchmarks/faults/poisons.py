"""NaN or infinity put into one number of a run, from outside: the function that does a package's step is wrapped in the child.

`planted(package, poison)` wraps once; which poison is given, if any, is read at each step, so that one process runs many cases.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor


@dataclass
class Poison:
    """`value` is put into number `place` of the tensor that `kind` names, at `step` of the run, counted from 0 over all replicas; once."""

    kind: str = ""
    step: int = -1
    place: int = 0
    value: float = float("nan")
    where: str = ""  # the tensor that was poisoned, as far as it has a name

    def due(self, step: int, *kinds: str) -> bool:
        """Whether it is to be put in now."""
        return step == self.step and self.kind in kinds and not self.where

    def into(self, named: dict[str, Tensor]) -> None:
        """Put it into one of some tensors."""
        names = [name for name, value in named.items() if value.is_floating_point() and value.numel()]
        self.where = names[self.place % len(names)]
        with torch.no_grad():
            flat = named[self.where].data.view(-1)
            flat[self.place % len(flat)] = self.value

    def of(self, loss: Tensor) -> Tensor:
        """A loss with the value in it, and so its gradient."""
        self.where = "loss"
        return loss * self.value


KINDS = {
    "layermatch": ("loss", "gradient", "weight", "centre", "average", "statistic", "moment"),
    "imwa": ("loss", "gradient", "weight", "replica", "average", "statistic", "moment"),
    "randommask": ("loss", "gradient", "weight", "moment"),
}


def _layermatch(poison: Poison) -> None:
    loop: Any = import_module("layermatch.training.loop")
    step: Any = import_module("layermatch.training.step")
    train_step, forward, all_finite = loop.train_step, step.forward, step.all_finite
    now = {"step": -1, "names": ()}

    def stepped(state: Any, *words: Any, **options: Any) -> None:
        now["step"], now["names"] = state.step, [name for name, _ in state.model.named_parameters()]
        tensors = {
            "weight": dict(state.model.named_parameters()),
            "centre": dict(state.criterion.named_buffers()),
            "average": dict(state.average.average.named_parameters()),
            "statistic": {name: value for name, value in state.model.named_buffers() if "running" in name},
            "moment": {f"{n}": state.optimizer.state[p]["momentum_buffer"] for n, p in enumerate(state.parameters)},
        }
        if poison.due(state.step, *tensors):
            poison.into(tensors[poison.kind])
        train_step(state, *words, **options)

    def lost(*words: Any, **options: Any) -> Any:
        out = forward(*words, **options)
        return out._replace(loss=poison.of(out.loss)) if poison.due(now["step"], "loss") else out

    def graded(loss: Tensor, parameters: list[Any]) -> Tensor:
        if poison.due(now["step"], "gradient"):
            poison.into({name: p.grad for name, p in zip(now["names"], parameters, strict=True)})
        return all_finite(loss, parameters)

    loop.train_step, step.forward, step.all_finite = stepped, lost, graded


def _imwa(poison: Poison) -> None:
    loop: Any = import_module("imwa.training.loop")
    train_step = loop.train_step

    def stepped(state: Any, images: Tensor, *, objective: Any, **options: Any) -> None:
        done, weights = state.done, dict(state.model.named_parameters())
        tensors = {
            "weight": weights,
            "average": {} if state.ema is None else dict(state.ema.model.named_parameters()),
            "statistic": {name: value for name, value in state.model.named_buffers() if "running" in name},
            "moment": {f"{n}": own["momentum_buffer"] for n, own in enumerate(state.optimizer.state.values())},
        }
        if poison.due(done, *tensors) and tensors[poison.kind]:
            poison.into(tensors[poison.kind])

        def lost(logits: Tensor, labels: Tensor, step: int) -> Tensor:
            loss = objective(logits, labels, step)
            return poison.of(loss) if poison.due(done, "loss") else loss

        def graded(*words: Any) -> None:
            if poison.due(done, "gradient"):
                poison.into({name: value.grad for name, value in weights.items()})

        handle = state.optimizer.register_step_pre_hook(graded)
        try:
            train_step(state, images, objective=lost, **options)
        finally:
            handle.remove()
        if poison.due(done, "replica"):
            poison.into(weights)

    loop.train_step = stepped


def _randommask(poison: Poison) -> None:
    from randommask.training.trainer import RandomMaskTrainer as Trained

    training_step, compute_loss = Trained.training_step, Trained.compute_loss

    def stepped(self: Any, model: Any, *words: Any, **options: Any) -> Tensor:
        step, weights = self.state.global_step, dict(model.named_parameters())
        moments = {n: self.optimizer.state[p].get("exp_avg_sq") for n, p in weights.items()} if step else {}
        moments = {name: value for name, value in moments.items() if value is not None}
        tensors = {"weight": weights, "moment": moments}
        if poison.due(step, *tensors) and tensors[poison.kind]:
            poison.into(tensors[poison.kind])
        loss = training_step(self, model, *words, **options)
        if poison.due(step, "gradient"):
            poison.into({name: value.grad for name, value in weights.items() if value.grad is not None})
        return loss

    def lost(self: Any, *words: Any, **options: Any) -> Any:
        loss = compute_loss(self, *words, **options)
        return poison.of(loss) if poison.due(self.state.global_step, "loss") else loss

    Trained.training_step, Trained.compute_loss = stepped, lost  # type: ignore[method-assign]  # on purpose, in the child


PLANTS: dict[str, Callable[[Poison], None]] = {"layermatch": _layermatch, "imwa": _imwa, "randommask": _randommask}


def planted(package: str) -> Poison:
    """In the child: a poison that the package's steps take from now on; it does nothing until its fields are set."""
    poison = Poison()
    PLANTS[package](poison)
    return poison
