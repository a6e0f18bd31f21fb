"""BatchNorm statistics for an averaged model, measured anew by forward passes.

Equation  running mean and variance = cumulative mean over the batches of the batch's own mean and variance
          (momentum None), in training mode, without gradients.
Batches   give what training sees: shuffled, with the training augmentation and sampler, all of one size (drop the
          short last one, every batch weighs the same). A set in class order gives single-class batches and costs
          points. Use it on an evaluated copy or the final model, never on the next episode's start: there it would
          make M = 1 another run.
Source    averaged statistics belong to no network: activations of averaged nets shrink (REPAIR, arXiv 2211.08403).
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch


def recompute_batch_norm(
    model: torch.nn.Module,
    loader: Iterable[Any],
    *,
    forward_fn: Callable[[torch.nn.Module, Any], Any] | None = None,
) -> int:
    """Replace running means and variances by those of the loader's batches, in place.

    Modes of all modules and momenta of the norms are put back whatever happens; on an error the statistics are too.
    An empty loader, or a model without running statistics, changes nothing. Dropout draws as in training.

    Args:
        model: any module; every BatchNorm in it that tracks statistics is measured.
        loader: batches of any form.
        forward_fn: called as `forward_fn(model, batch)` for each. Without it a tensor is the model's input, of a
            tuple or list the first item is, and of a dictionary the items are its keyword arguments; tensors are
            moved to the model's device.

    Returns:
        The number of batches used.

    Raises:
        ValueError: a batch of another form without `forward_fn`; its type is named.
    """
    norms = [
        m
        for m in model.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    if not norms:
        return 0
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    before = [{name: value.clone() for name, value in norm.named_buffers(recurse=False)} for norm in norms]
    used, done = 0, False
    try:
        with torch.no_grad():
            for batch in loader:
                if not used:
                    _make_ready(model, norms)
                (forward_fn or _forward)(model, batch)
                used += 1
        done = True
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, momentum, saved in zip(norms, momenta, before, strict=True):
            norm.momentum = momentum
            _put_back(norm, saved, everything=not done)
    return used


def _make_ready(model: torch.nn.Module, norms: list[Any]) -> None:
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean


@torch.no_grad()
def _put_back(norm: torch.nn.Module, saved: dict[str, torch.Tensor], *, everything: bool) -> None:
    """The counter of batches seen in training stays training's; the statistics too where measuring failed."""
    for name, value in saved.items():
        if everything or name == "num_batches_tracked":
            norm.get_buffer(name).copy_(value)


def _forward(model: torch.nn.Module, batch: Any) -> Any:
    device = next(model.parameters()).device
    if isinstance(batch, dict):
        return model(
            **{name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        )
    if isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if not isinstance(batch, torch.Tensor):
        raise ValueError(
            f"A batch is a {type(batch).__name__}, and the model's input in it is not known. Give "
            "forward_fn=lambda model, batch: ..."
        )
    return model(batch.to(device))
