"""The moving average of a model, which is what gets evaluated.

theta_avg <- theta_avg + (1 - m)(theta - theta_avg)      after each optimizer step; starts as a copy
buffers (BatchNorm statistics and counters) are copied, not averaged, as USB and FixMatch-pytorch do

Cost      the tensors are paired once: walking the modules and sorting their tensors at each step costs more than the
          arithmetic. With `flat` an update is one pass over one stretch of memory.
Precision half-precision parameters are averaged in float32: steps of (1 - m) would vanish in their rounding.
"""

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from layermatch.keywords import spelt

# One call for a list of tensors, as torch's own optimizers use them.
_lerp_each = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage] (torch has no public call for a list)
_copy_each = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage] (the same)

HALF_PRECISION = (torch.float16, torch.bfloat16)


class ModelAverage:
    """A copy of a model whose floating-point parameters follow it slowly.

    Args:
        model: what is averaged, on the device and in the memory format where it stays; the module within a
            DistributedDataParallel or a compiled one is taken. The copy is `average`, in eval mode and without gradients.
        momentum: m in [0, 1]; 0 follows at once.
        flat: lay the tensors of the model and of its average, each in their order, into one stretch of memory. An update
            then takes about the time of one `lerp_` over all values, a third less on a CPU. Parameters stay the same
            objects, so optimizers, DistributedDataParallel and `torch.compile` go on; but a library that takes tensors
            of one memory for tied ones (`accelerator.save_model`, safetensors' `save_model`) must be given a copy.

    Raises:
        ValueError: the momentum lies outside [0, 1], or tensors that are to be laid flat share memory; they are named.
    """

    @spelt
    def __init__(self, model: nn.Module, *, momentum: float, flat: bool = False) -> None:
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"The model average's momentum is {momentum}. Choose a number from 0 to 1.")
        self.momentum = float(momentum)
        live = unwrapped(model)
        if flat:
            _refuse_shared(live)
        self.average = copy.deepcopy(live).eval().requires_grad_(False)
        if any(parameter.dtype in HALF_PRECISION for parameter in live.parameters()):
            self.average.float()
        parameters = list(zip(self.average.parameters(), live.parameters(), strict=True))
        buffers = zip(self.average.buffers(), live.buffers(), strict=True)
        self._moving = _groups([pair for pair in parameters if not _counts(pair[0])], flat=flat)
        self._copied = _groups([*(pair for pair in parameters if _counts(pair[0])), *buffers], flat=flat)
        # what moves a model, or changes its memory format, moves the tensor of most axes
        probes = [max(module.parameters(), key=Tensor.dim, default=None) for module in (self.average, live)]
        self._places = [(probe, probe.data_ptr()) for probe in probes if flat and probe is not None]

    def update(self, *, step_taken: Tensor | None = None) -> None:
        """Move the average towards the model as it is now.

        Args:
            step_taken: Bool[] on the model's device; where it is False the average stays as it is, whatever the model
                holds, without a read of the device. None means True.

        Raises:
            RuntimeError: a flat model, or its average, was moved to another device, dtype or memory format.
        """
        if step_taken is not None and step_taken.is_cpu:
            if not step_taken.numpy():  # in the host's own memory: nothing is waited for
                return
            step_taken = None
        for tensor, place in self._places:
            if tensor.data_ptr() != place:
                raise RuntimeError(
                    "A flat model, or its average, was moved to another device, dtype or memory format. Move the model "
                    "first, then build its average."
                )
        share = 1.0 - self.momentum
        with torch.no_grad():
            for held, now in self._moving:
                move(held, _like(now, held), share=share, taken=step_taken)
            for held, now in self._copied:
                move(held, now, share=None, taken=step_taken)

    def state_dict(self) -> dict[str, Any]:
        """State of the averaged copy."""
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from `state_dict()`; names and shapes must fit."""
        self.average.load_state_dict(state)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, out of DistributedDataParallel and `torch.compile`."""
    while True:
        wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
        inner = model.module if wrapped else dict(model.named_children()).get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return model
        model = inner


Pair = tuple[list[Tensor], list[Tensor]]


def move(held: list[Tensor], now: list[Tensor], *, share: float | None, taken: Tensor | None) -> None:
    """Held <- held + share (now - held), or where `share` is None held <- now.

    Where `taken` is False `held` stays as it is: by `where` on the device, so that a NaN that is not taken goes nowhere.
    Lists of one, which a flat model has, go past torch's calls for lists; with `taken` there are few calls at any length.
    """
    if taken is not None:
        old, new = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (held, now))
        flat = torch.where(taken, new if share is None else old.lerp(new, share), old)
        parts = flat.split([tensor.numel() for tensor in held])
        _copy_each(held, [part.view(tensor.shape) for part, tensor in zip(parts, held, strict=True)])
    elif share is None:
        held[0].copy_(now[0]) if len(held) == 1 else _copy_each(held, now)
    else:
        held[0].lerp_(now[0], share) if len(held) == 1 else _lerp_each(held, now, share)


def _like(now: list[Tensor], held: list[Tensor]) -> list[Tensor]:
    return now if now[0].dtype == held[0].dtype else [tensor.to(held[0].dtype) for tensor in now]


def _groups(pairs: list[tuple[Tensor, Tensor]], *, flat: bool) -> list[Pair]:
    """Averaged and live tensors, those of one device and dtype together; laid flat, one of each."""
    kinds: dict[Any, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for held, now in pairs:
        if held.numel():
            whole = flat and held.stride() == now.stride() and _dense(now)
            kinds[held.device, held.dtype, now.dtype, whole].append((held, now))
    groups = []
    for kind, own in kinds.items():
        held, now = ([pair[side] for pair in own] for side in (0, 1))
        groups.append(([_laid_flat(held)], [_laid_flat(now)]) if kind[-1] else (held, now))
    return groups


def _laid_flat(tensors: list[Tensor]) -> Tensor:
    """One tensor of all values, as they lie in memory; the given tensors, the same objects, become views of it."""
    store = tensors[0].detach().new_empty(sum(tensor.numel() for tensor in tensors))
    parts = store.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        view = part.as_strided(tensor.shape, tensor.stride())
        view.copy_(tensor.detach())
        tensor.data = view
    return store


def _dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))


def _refuse_shared(model: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        owner = owners.setdefault(tensor.untyped_storage().data_ptr(), name) if tensor.numel() else name
        if owner != name:
            raise ValueError(f"{owner} and {name} share memory, so the model cannot be laid flat. Leave `flat` out.")


def _counts(tensor: Tensor) -> bool:
    """Whether the tensor holds whole numbers or flags, which have no average."""
    return not (tensor.is_floating_point() or tensor.is_complex())
