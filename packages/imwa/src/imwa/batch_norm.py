"""BatchNorm statistics for an averaged model: measured anew by forward passes, or pooled from the replicas'.

Equation  running mean and variance = cumulative mean over the batches of the batch's own mean and variance
          (momentum None), in training mode, without gradients.
Pooled    mean = mean_m mu_m, variance = mean_m s2_m + Var_m(mu_m), the population variance over m: mean and variance of the
          mixture. Var_m is formed from the means' drift since the episode's start, mean_m d_m^2 - (mean_m d_m)^2 with
          d_m = mu_m - mu_start, so that it cancels little and is exactly 0 where all agree.
Batches   give what training sees: shuffled, with the training augmentation and sampler, all of one size (drop the
          short last one, every batch weighs the same). A set in class order gives single-class batches and costs
          points. Use it on an evaluated copy or the final model, never on the next episode's start: there it would
          make M = 1 another run.
Source    averaged statistics belong to no network: activations of averaged nets shrink (REPAIR, arXiv 2211.08403).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

POOLINGS = ("average", "pooled")


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
    norms = [norm for _, norm in _tracking_norms(model)]
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


@torch.no_grad()
def squared_drifts(
    model: torch.nn.Module, live: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """d_m^2 of every norm of the model, by the name of its running mean; to be averaged with everything else.

    Args:
        model: whose norms.
        live: a replica's tensors by name.
        start: those of its episode's start.
    """
    return {name: (live[name] - start[name]).square() for name, _ in _statistics(model)}


@torch.no_grad()
def add_spread(
    model: torch.nn.Module,
    mean: dict[str, torch.Tensor],
    squares: Mapping[str, torch.Tensor],
    *,
    start: Mapping[str, torch.Tensor],
) -> None:
    """Make averaged variances pooled ones: put the variance of the replicas' means on top.

    Args:
        model: whose norms.
        mean: averaged tensors by name; entries of running variances are replaced.
        squares: averaged `squared_drifts`.
        start: tensors of the episode's start.
    """
    for name, variance in _statistics(model):
        spread = squares[name] - (mean[name] - start[name]).square()
        mean[variance] = mean[variance] + spread.clamp(min=0)


def _tracking_norms(model: torch.nn.Module) -> list[tuple[str, Any]]:
    return [
        (prefix, module)
        for prefix, module in model.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]


def _statistics(model: torch.nn.Module) -> list[tuple[str, str]]:
    """Names of each norm's running mean and variance."""
    prefixes = [f"{prefix}." if prefix else "" for prefix, _ in _tracking_norms(model)]
    return [(f"{prefix}running_mean", f"{prefix}running_var") for prefix in prefixes]


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
