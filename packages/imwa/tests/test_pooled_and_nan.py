"""Pooled BatchNorm statistics, and replicas that end with a NaN, in turn; across processes: `distributed/`."""

import logging
import math

import pytest
import torch

from imwa import IMWA
from imwa.averaging import module_tensors


def norm_run(batches, *, batch_norm, momentum=1.0, dtype=torch.float64, episodes=1):
    """One BatchNorm, replicas by batches; its statistics are those of a replica's last batch."""
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(batches[0].shape[1], momentum=momentum)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    ends = []
    settings = {"replicas": len(batches), "episodes": episodes, "steps": episodes, "batch_norm": batch_norm}
    for replica in IMWA(model, optimizer, **settings):
        for _ in replica.steps:
            model(batches[replica.index].to(dtype))
        ends.append({name: value.detach().clone() for name, value in module_tensors(model).items()})
    return model[0], ends


@pytest.mark.parametrize("count", [2, 3, 8])
def test_o15_pooled_variance_is_that_of_the_union_and_at_least_the_averaged(count):
    """Normalised by n, as the batch itself is: torch keeps the unbiased variance, so n/(n-1) is taken off first."""
    torch.manual_seed(count)
    batches = [
        5 * torch.randn(1, 4, dtype=torch.float64) + (m + 1) * torch.randn(50, 4, dtype=torch.float64)
        for m in range(count)
    ]
    pooled, ends = norm_run(batches, batch_norm="pooled")
    averaged, _ = norm_run(batches, batch_norm="average")
    union = torch.cat(batches)
    spread = torch.stack([end["0.running_mean"] for end in ends]).var(0, unbiased=False)
    within = torch.stack([end["0.running_var"] for end in ends]).mean(0)
    assert (pooled.running_mean - union.mean(0)).abs().max() < 1e-12
    assert ((within * 49 / 50 + spread) - union.var(0, unbiased=False)).abs().max() < 1e-12
    assert (pooled.running_var - (within + spread)).abs().max() < 1e-12
    assert (pooled.running_var >= averaged.running_var).all()
    assert torch.equal(pooled.running_mean, averaged.running_mean)
    assert (pooled.running_var - averaged.running_var).max() > 1


def test_pooling_cancels_little_far_from_zero():
    """Means of 1e4 and a spread of 1e-2 in float32: E[mu^2] - E[mu]^2 would be nothing but rounding."""
    torch.manual_seed(0)
    base = torch.randn(4000, 2)
    start = 1e4
    model = torch.nn.BatchNorm1d(2, momentum=1.0)
    model.running_mean.fill_(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    shifts = [0.0, 1.0, 2.0]
    for replica in IMWA(model, optimizer, replicas=3, episodes=1, steps=1, batch_norm="pooled"):
        for _ in replica.steps:
            model.running_mean.fill_(start + shifts[replica.index])
            model.running_var.copy_(base.var(0))
    assert (model.running_var - (base.var(0) + 2 / 3)).abs().max() < 1e-5


@pytest.mark.parametrize("replicas", [1, 3])
def test_pooling_changes_nothing_where_all_agree(replicas):
    torch.manual_seed(1)
    batch = torch.randn(20, 3)
    pooled, ends = norm_run([batch] * replicas, batch_norm="pooled", momentum=0.1, dtype=torch.float32, episodes=3)
    assert torch.equal(pooled.running_var, ends[-1]["0.running_var"])
    assert torch.equal(pooled.running_mean, ends[-1]["0.running_mean"])


def test_norms_without_statistics_or_shared_are_pooled_once_or_not_at_all():
    shared = torch.nn.BatchNorm1d(2, momentum=1.0)
    model = torch.nn.Sequential(shared, torch.nn.BatchNorm1d(2, track_running_stats=False), shared)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for replica in IMWA(model, optimizer, replicas=2, episodes=1, steps=1, batch_norm="pooled"):
        for _ in replica.steps:
            shared.running_mean.fill_(2.0 * replica.index)
    assert shared.running_var.tolist() == [2.0, 2.0]  # 1 within, 1 between


def diverging(*, bad, policy="average", **settings):
    """Replicas in `bad` end with NaN weights and momenta; everything else is a fixed walk."""
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    starts, ema = [], torch.nn.Linear(1, 1)
    iterative = IMWA(
        model, optimizer, replicas=4, episodes=2, steps=2, optimizer_state=policy, average={"ema": ema}, **settings
    )
    for replica in iterative:
        starts.append(model.weight.item())
        for _ in replica.steps:
            optimizer.zero_grad()
            model.weight.grad = torch.tensor([[-float(replica.index + 1)]])
            optimizer.step()
        if (replica.episode, replica.index) in bad:
            with torch.no_grad():
                model.weight.fill_(math.nan)
                optimizer.state[model.weight]["momentum_buffer"].fill_(math.nan)
    return model.weight.item(), starts, iterative


def test_a_replica_with_a_nan_is_left_out_counted_and_said(caplog):
    with caplog.at_level(logging.WARNING, logger="imwa.driver"):
        _, starts, iterative = diverging(bad={(0, 0), (0, 2)}, on_nan="leave out")
    assert starts == [0.0] * 4 + [3.0] * 4  # the mean of 2 and 4
    assert [(episode, index) for episode, index, _ in iterative.left_out] == [(0, 0), (0, 2)]
    assert "'weight' of replica 0 of episode 0 holds NaN" in iterative.left_out[0][2]
    assert "which is over 2" in caplog.text


def test_under_local_a_replica_that_was_left_out_starts_from_its_last_good_state():
    end, _, iterative = diverging(bad={(0, 1)}, on_nan="leave out", policy="local")
    assert math.isfinite(end)
    assert len(iterative.left_out) == 1


def test_a_nan_stops_the_run_by_default_and_where_no_replica_is_left():
    with pytest.raises(ValueError, match="'weight' of replica 1 of episode 0 holds NaN"):
        diverging(bad={(0, 1)})
    with pytest.raises(
        ValueError, match=r"None of the 4 replicas of episode 1 can be averaged. The first: 'weight' of replica 0"
    ):
        diverging(bad={(1, 0), (1, 1), (1, 2), (1, 3)}, on_nan="leave out")


def test_the_list_of_those_left_out_survives_a_file(tmp_path):
    _, _, iterative = diverging(bad={(0, 3)}, on_nan="leave out")
    torch.save(iterative.state_dict(), tmp_path / "state.pt")
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    again = IMWA(
        model, optimizer, replicas=4, episodes=2, steps=2, average={"ema": torch.nn.Linear(1, 1)}, on_nan="leave out"
    )
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.left_out == iterative.left_out


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_norm": "pool"}, "batch_norm is 'pool', and may be 'average', 'pooled'; did you mean 'pooled'"),
        ({"on_nan": "leave-out"}, "on_nan is 'leave-out', and may be 'stop', 'leave out'; did you mean 'leave out'"),
        ({"group": object()}, "torch.distributed has no process group"),
    ],
)
def test_settings_are_refused_by_value(settings, sentence):
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match=sentence):
        IMWA(model, torch.optim.SGD(model.parameters(), lr=1.0), steps=2, episodes=2, **settings)
