"""What a transformers Trainer can do that replicas in turn are not right with, refused before the first step.

And how processes each get a Trainer of their own, in place of copies of one model.
"""

import os
import socket
from typing import Any

import torch
import torch.distributed as dist

FOLLOW_METRICS = ("ReduceLROnPlateau", "GreedyLR")
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")


def refuse_trainer(trainer: Any) -> None:
    """Refuse ways to train that are not served.

    Raises:
        ValueError: names it.
    """
    args = trainer.args
    for name, switched_on in (("DeepSpeed", trainer.is_deepspeed_enabled), ("FSDP", trainer.is_fsdp_enabled)):
        if switched_on:
            raise ValueError(
                f"{name} is switched on, and then no process holds the whole model and optimizer that are averaged. "
                f"Train without {name}, or one replica a process with IMWACallback(group=...)."
            )
    if args.world_size > 1:
        raise ValueError(
            f"The Trainer runs in {args.world_size} processes as copies of one model. For replicas in processes call "
            "imwa.integrations.transformers.one_trainer_per_process() before TrainingArguments; else start one process."
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"The Trainer sees {args.n_gpu} GPUs and would split every batch over them. Show it one, by "
            "CUDA_VISIBLE_DEVICES=0, or start one process for each by torchrun and one_trainer_per_process()."
        )
    for name in ("auto_find_batch_size", "ignore_data_skip"):
        if getattr(args, name):
            raise ValueError(
                f"{name} is True, and then a step's batch does not follow from its number. Set it to False."
            )


def refuse_accumulation(accumulation: int, *, batches: int | None, replicas: int) -> None:
    """Refuse an accumulation under which steps of different replicas would be of different lengths.

    Args:
        accumulation: micro-batches a step.
        batches: micro-batches in one pass over the data, where they are known.
        replicas: M.

    Raises:
        ValueError: it does not divide; both numbers are named.
    """
    if replicas > 1 and batches and batches % accumulation:
        raise ValueError(
            f"gradient_accumulation_steps is {accumulation} and a pass over the data has {batches} batches, so the last step "
            "of a pass is shorter, and replicas end theirs elsewhere. Choose a number that divides, or drop examples."
        )


def refuse_schedule(scheduler: Any) -> None:
    """Refuse a schedule that follows metrics.

    Raises:
        ValueError: names it.
    """
    if type(scheduler).__name__ in FOLLOW_METRICS:
        raise ValueError(
            f"The learning rate's schedule is {type(scheduler).__name__}, which follows the metrics of one run and cannot be "
            "rewound for each replica. Choose one that follows the step, such as a cosine."
        )


def one_trainer_per_process(backend: str | None = None) -> Any:
    """Join the processes that torchrun started, and hide its variables from the Trainer.

    Every process then runs a Trainer of its own, on a GPU of its own, instead of a copy of one model (DDP); their replicas
    are averaged over the group that is returned. Call it first of all, and give each process its own `output_dir`.

    Args:
        backend: of torch.distributed; None is "nccl" where there is CUDA, else "gloo".

    Returns:
        The group, for `IMWACallback(group=...)`; `torch.distributed.get_rank()` still tells the processes apart.

    Raises:
        ValueError: torchrun's variables are not set.
    """
    local = os.environ.get("LOCAL_RANK")
    if local is None:
        raise ValueError("LOCAL_RANK is not set. Start the script by torchrun: torchrun --nproc-per-node 2 SCRIPT.")
    if backend is None:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(local)] if visible else local
    dist.init_process_group(backend)
    for name in TORCHRUN:
        os.environ.pop(name, None)
    return dist.group.WORLD


def refuse_shared_folder(folder: str, group: Any) -> None:
    """Refuse a folder that several processes of a machine would write into; every process of the group calls it.

    Raises:
        ValueError: names it.
    """
    here = (socket.gethostname(), os.path.abspath(folder))
    folders: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(folders, here, group=group)
    if folders.count(here) > 1:
        raise ValueError(
            f"output_dir is {folder!r} in {folders.count(here)} processes of this machine, which would overwrite each other's "
            "checkpoints. Give each its own, such as f'run/process-{torch.distributed.get_rank()}'."
        )
