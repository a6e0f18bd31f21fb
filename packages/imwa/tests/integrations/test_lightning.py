"""IMWA in Lightning: the plain fit bit for bit with one replica, the driver's own loop with three, resumes, refusals."""

import pytest
import torch

lightning = pytest.importorskip("lightning", reason="lightning is not installed (extra: lightning)")

from imwa import IMWA  # noqa: E402  (behind the check for lightning)
from imwa.batches import replica_batches  # noqa: E402  (the same)
from imwa.integrations.lightning import IMWACallback  # noqa: E402  (the same)
from imwa.replica import Steps  # noqa: E402  (the same)

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
STEPS = 8


class Model(lightning.LightningModule):
    def __init__(self, *, interval="step", automatic=True):
        super().__init__()
        torch.manual_seed(3)
        layers = [torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.2)]
        self.net = torch.nn.Sequential(*layers, torch.nn.Linear(16, 4))
        self.interval, self.automatic_optimization = interval, automatic
        self.rates, self.validated = [], []

    def training_step(self, batch, _):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.validated.append(self.net[0].weight.detach().clone())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": self.interval}}


class Replay:
    """Batches one after the other, however often it is iterated: the plain fit over an order that is given."""

    def __init__(self, batches, length):
        self.batches, self.length = iter(batches), length

    def __len__(self):
        return self.length

    def __iter__(self):
        yield from self.batches


def loader(count=44):
    draw = torch.Generator().manual_seed(5)
    features = torch.randn(count, 6, generator=draw)
    labels = (features @ torch.randn(6, 4, generator=draw)).argmax(1)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, labels), batch_size=8, shuffle=True)


def fit(callback, folder, *more, feed=None, model=None, ckpt_path=None, **options):
    model = model or Model()
    torch.manual_seed(9)
    options = {"max_steps": STEPS, "limit_val_batches": 0, "enable_checkpointing": bool(more), **options}
    callbacks = [*([] if callback is None else [callback]), *more]
    trainer = lightning.Trainer(callbacks=callbacks, default_root_dir=folder, **QUIET, **options)
    trainer.fit(model, feed or callback.loader(loader()), loader(16), ckpt_path=ckpt_path)
    return model, trainer


def everything(model, trainer):
    found = {f"model/{name}": value.clone() for name, value in model.state_dict().items()}
    for number, entries in trainer.optimizers[0].state_dict()["state"].items():
        found.update({f"optimizer/{number}/{name}": torch.as_tensor(value).clone() for name, value in entries.items()})
    found["rate"] = torch.tensor(trainer.lr_scheduler_configs[0].scheduler.get_last_lr())
    found["generator"] = torch.get_rng_state()
    return found


def assert_same(one, two):
    assert one.keys() == two.keys()
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


@pytest.mark.parametrize("accumulation", [1, 2])
def test_o1_one_replica_is_the_plain_fit(accumulation, tmp_path):
    options = {"accumulate_grad_batches": accumulation, "limit_val_batches": 1, "val_check_interval": 2}
    own = [batch for _, batch in replica_batches(loader(), steps=Steps(0, 20, following=0), seed=0, replica=0)]
    expected, plain = fit(None, tmp_path, feed=Replay(own, 6), **options)
    expected_state = everything(expected, plain)
    for optimizer_state in ("average", "local"):
        callback = IMWACallback(replicas=1, episodes=3, optimizer_state=optimizer_state)
        model, trainer = fit(callback, tmp_path, **options)
        assert_same(expected_state, everything(model, trainer))
        assert callback.turns.finished
        assert (trainer.global_step, trainer.max_steps, model.rates) == (STEPS, STEPS, expected.rates)


@pytest.mark.parametrize("optimizer_state", ["average", "local", "reset"])
def test_three_replicas_are_the_drivers_own_loop(optimizer_state, tmp_path):
    callback = IMWACallback(replicas=3, episodes=3, optimizer_state=optimizer_state)
    model, trainer = fit(callback, tmp_path)
    twin = Model()
    torch.manual_seed(9)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    iterative = IMWA(
        twin,
        optimizer,
        replicas=3,
        episodes=3,
        steps=STEPS,
        optimizer_state=optimizer_state,
        carry={"schedule": schedule},
    )
    rates = []
    for replica in iterative:
        for _, (features, labels) in replica.batches(loader()):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(twin.net(features), labels).backward()
            optimizer.step()
            schedule.step()
    assert_same(dict(twin.state_dict()), dict(model.state_dict()))
    assert model.rates == rates
    assert (trainer.global_step, trainer.max_steps) == (3 * STEPS, STEPS)


def test_o3_resumed_within_and_between_episodes_it_ends_with_the_same_bits(tmp_path):
    settings = {"replicas": 3, "episodes": 2, "optimizer_state": "local"}
    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "kept", filename="{step}", save_top_k=-1, every_n_train_steps=1
    )
    expected = everything(*fit(IMWACallback(**settings), tmp_path / "whole", keep))
    # within a replica, at its end, at the end of an epoch of the loop, within and behind an episode, before the end
    for step in (1, 4, 6, 11, 12, 18, 23):
        callback = IMWACallback(**settings)
        model, trainer = fit(callback, tmp_path / "rest", ckpt_path=tmp_path / f"kept/step={step}.ckpt")
        assert_same(expected, everything(model, trainer))
        assert callback.turns.finished
    with pytest.raises(ValueError, match="episodes is 3 here and 2 there"):
        fit(
            IMWACallback(replicas=3, episodes=3, optimizer_state="local"),
            tmp_path,
            ckpt_path=tmp_path / "kept/step=1.ckpt",
        )


def test_behind_an_episode_the_average_is_validated(tmp_path):
    averages = []
    callback = IMWACallback(
        replicas=2, episodes=2, after_average=lambda _, module: averages.append(module.net[0].weight.detach().clone())
    )
    options = {"limit_val_batches": 1, "num_sanity_val_steps": 0, "check_val_every_n_epoch": None}
    model, _ = fit(callback, tmp_path, val_check_interval=4, **options)
    assert len(model.validated) == 4
    assert [torch.equal(seen, averages[number // 2]) for number, seen in enumerate(model.validated)] == [
        False,
        True,
    ] * 2


def test_a_checkpoint_within_a_step_is_refused():
    with pytest.raises(ValueError, match="within step 5 of the loop, after 1 of its micro-batches"):
        IMWACallback().load_state_dict({"iterative": {}, "position": 5, "micro_batches": 1})


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ({"automatic": False}, {}, "Model has automatic_optimization = False"),
        ({"interval": "epoch"}, {}, "CosineAnnealingLR moves by every 1 epoch"),
        ({}, {"max_steps": -1, "max_epochs": -1}, "no limit that gives a number of steps"),
        ({}, {"accumulate_grad_batches": 4}, "accumulate_grad_batches is 4 and an epoch has 6 batches"),
        ({}, {"feed": loader()}, "The training loader is a DataLoader"),
    ],
)
def test_what_is_not_served_is_refused_by_name(model, options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        fit(IMWACallback(replicas=2, episodes=2), tmp_path, model=Model(**model), **options)


def test_other_averages_are_refused_by_name(tmp_path):
    other = lightning.pytorch.callbacks.StochasticWeightAveraging(swa_lrs=0.01)
    with pytest.raises(ValueError, match="The callback StochasticWeightAveraging counts steps of one run"):
        fit(IMWACallback(replicas=2, episodes=2), tmp_path, other)
