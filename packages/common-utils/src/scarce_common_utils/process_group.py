"""The end of a run in several processes: all of them leave at the same time.

A process that leaves right after its last collective can be aborted by C++ ("terminate called without an active exception"):
gloo's threads let go of that collective's tensors a moment after it is over, which needs Python, and Python may be
ending by then. `torch.distributed.destroy_process_group` does not end these threads while a DistributedDataParallel lives.
So the others wait for the slowest, the one that writes results, in a way that leaves no tensor behind.
"""

import torch.distributed as dist

from scarce_common_utils.watch import end_watch


def leave_together() -> None:
    """Wait for all processes of the default group, if there is one; called as the last thing where no error is under way.

    Where one fails before it comes here, the launcher (`torchrun`, `accelerate launch`) ends the others.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    if dist.get_backend() == "gloo":
        dist.monitored_barrier()  # messages between processes, in the calling thread: no collective, no thread of its own
    else:
        dist.barrier()
    end_watch()  # from now on a process that is gone has only left before this one
