"""What every process does for `test_diagnostics_processes.py`: the toy run, looked at, with a replica that diverges."""

import datetime
import math

import torch
import torch.distributed as dist

from imwa import IMWA, Diagnostics, recompute_batch_norm
from reference.toy import Set, data, net

FEATURES, LABELS = data()


def loss(model):
    model.eval()
    return torch.nn.functional.cross_entropy(model(FEATURES), LABELS).item()


def measure_norms(model):
    recompute_batch_norm(model, [FEATURES[:50], FEATURES[50:100]])


def looked_at(*, replicas, diverges=None, **settings):
    """Reports, segments, warning and who was told; `diverges` is (episode, replica)."""
    torch.set_num_threads(1)
    own, told = Set(net(), steps=8), []
    torch.manual_seed(123)
    diagnostics = Diagnostics(
        loss,  # as if higher were better, so that every average lies below its replicas
        drop=1e-9,
        recompute=measure_norms,
        recompute_every=2,
        loss=loss,
        barrier_in=[0, 2],
        points=(0.0, 0.5, 1.0),
        group=settings.get("group"),
        warn=told.append,
    )
    carried = {"carry": {"scheduler": own.scheduler}, "after_average": diagnostics.after_average}
    more = {"replicas": replicas, "episodes": 4, "steps": 8, "on_nan": "leave out"}
    for replica in diagnostics.watch(IMWA(own.model, own.optimizer, **more, **carried, **settings)):
        for _ in replica.steps:
            own.step(replica.generator, (FEATURES, LABELS))
        if (replica.episode, replica.index) == diverges:
            with torch.no_grad():
                own.model[0].weight.fill_(math.nan)
    plain = [tuple(report) for report in diagnostics.reports]
    places = [(*place, tuple(segment)) for *place, segment in diagnostics.segments]
    return {"reports": plain, "segments": places, "warning": diagnostics.warning, "told": told}


RUNS = {
    "one each": {"replicas": 2},
    "several": {"replicas": 5},
    "one diverges": {"replicas": 4, "diverges": (2, 1)},
    "alone and diverges": {"replicas": 2, "diverges": (2, 0)},
}


def everything(rank, size, folder):
    timeout = datetime.timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=timeout)
    group = dist.group.WORLD
    found = {name: looked_at(group=group, deterministic=True, **settings) for name, settings in RUNS.items()}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.monitored_barrier()  # or gloo may abort one of them at its end
    dist.destroy_process_group()
