"""On a CUDA device: the core against the slow twin, half precision, and steps that never wait for the device."""

import copy

import pytest
import torch

from imwa import IMWA, average_state_dicts
from reference.mean import slow_mean

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is found"),
]


def small(dtype=torch.float32):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 4)
    )
    model = model.to("cuda", dtype)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train(model, optimizer, inputs):
    optimizer.zero_grad()
    model(inputs).float().square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_mean_on_the_device_is_the_slow_twin_s(dtype):
    draw = torch.Generator().manual_seed(1)
    states = [
        {"w": torch.randn(33, 7, generator=draw, dtype=torch.float64).to(dtype), "n": torch.tensor(m)} for m in range(5)
    ]
    result = average_state_dicts([{name: value.cuda() for name, value in state.items()} for state in states])
    assert result["w"].device.type == "cuda"
    assert result["n"].item() == 4
    assert torch.equal(result["w"].cpu(), average_state_dicts(states)["w"])
    bound = {torch.float64: 1e-15, torch.float32: 3e-7, torch.bfloat16: 4e-3, torch.float16: 5e-4}[dtype]
    size = sum(state["w"].double().abs() for state in states) / 5
    assert ((result["w"].cpu().double() - slow_mean([state["w"] for state in states])).abs() <= bound * size).all()


def test_a_nan_on_the_device_is_refused_by_name():
    states = [{"w": torch.ones(3, device="cuda") * m} for m in range(3)]
    states[1]["w"][2] = float("nan")
    with pytest.raises(ValueError, match="'w' of state 1 holds NaN"):
        average_state_dicts(states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_episode_is_the_mean_of_separate_runs(dtype):
    def inputs(index):
        draw = torch.Generator().manual_seed(index)
        return [torch.randn(32, 6, generator=draw).to("cuda", dtype) for _ in range(4)]

    model, optimizer = small(dtype)
    model[3].p = 0.0
    ends = []
    for index in range(3):
        copy_model = copy.deepcopy(model)
        copy_optimizer = torch.optim.AdamW(copy_model.parameters(), lr=0.01)
        for batch in inputs(index):
            train(copy_model, copy_optimizer, batch)
        ends.append(copy_model.state_dict())
    for replica in IMWA(model, optimizer, replicas=3, episodes=1, steps=4):
        batches = inputs(replica.index)
        for step in replica.steps:
            train(model, optimizer, batches[step])
    assert all(torch.equal(model.state_dict()[name], value) for name, value in average_state_dicts(ends).items())


def test_one_replica_is_the_plain_run_dropout_included():
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randn(32, 6, generator=draw).cuda() for _ in range(6)]
    plain, optimizer = small()
    torch.manual_seed(4)
    for batch in batches:
        train(plain, optimizer, batch)
    model, optimizer = small()
    torch.manual_seed(4)
    for replica in IMWA(model, optimizer, replicas=1, episodes=3, steps=6):
        for step in replica.steps:
            train(model, optimizer, batches[step])
    assert all(torch.equal(model.state_dict()[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("settings", [{}, {"fused": True}, {"capturable": True}])
def test_resumed_from_a_file_on_the_cpu_state_returns_to_its_devices(settings, tmp_path):
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randn(32, 6, generator=draw).cuda() for _ in range(6)]

    def fresh():
        model, _ = small()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **settings)
        torch.manual_seed(4)
        return model, optimizer, IMWA(model, optimizer, replicas=2, episodes=2, steps=6)

    model, optimizer, iterative = fresh()
    for replica in iterative:
        for step in replica.steps:
            train(model, optimizer, batches[step])
            if (replica.index, step) == (1, 4):
                torch.save(iterative.state_dict(), tmp_path / "state.pt")
    places = [{name: value.device for name, value in state.items()} for state in optimizer.state.values()]
    again, optimizer, iterative = fresh()
    iterative.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True, map_location="cpu"))
    for replica in iterative:
        for step in replica.steps:
            train(again, optimizer, batches[step])
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    assert [{name: value.device for name, value in state.items()} for state in optimizer.state.values()] == places


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_step_never_waits_for_the_device(dtype):
    """The driver adds no host read to a step; batches through a loader neither."""
    model, optimizer = small()
    data = torch.utils.data.TensorDataset(torch.randn(64, 6))
    loader = torch.utils.data.DataLoader(data, batch_size=16, pin_memory=True)
    resident = torch.randn(16, 6, device="cuda")
    for replica in IMWA(model, optimizer, replicas=2, episodes=2, steps=8):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step, (batch,) in replica.batches(loader):
                inputs = resident if step % 2 else batch.to("cuda", non_blocking=True)
                with torch.autocast("cuda", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                    train(model, optimizer, inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
