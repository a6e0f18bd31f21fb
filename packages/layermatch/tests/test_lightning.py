"""The Lightning callback: centres and average move once a real optimizer step, and the average is what is validated."""

import types
import warnings

import pytest
import torch
from torch import nn

lightning = pytest.importorskip("lightning", reason="lightning is not installed (extra: lightning)")

from layermatch import LayerMatch  # noqa: E402  (behind the check for lightning)
from layermatch.integrations.lightning import LayerMatchCallback  # noqa: E402  (the same)

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Batches(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, number):
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(4 + 6 + 6, 5, generator=generator)
        return images, torch.randint(3, (4,), generator=generator)


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.classifier = nn.Linear(8, 3)
        self.criterion = LayerMatch(self.classifier, threshold=0.0, momentum=0.5)
        self.seen, self.rows = [], []

    def training_step(self, batch, _):
        images, labels = batch
        labelled, weak, strong = self.body(images).split([4, 6, 6])
        self.rows.append(self.classifier.weight.detach().clone())
        return self.criterion(labelled=(labelled, labels), weak=weak, strong=strong).loss

    def validation_step(self, batch, _):
        self.seen.append(self.classifier.weight.detach().clone())

    test_step = predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(callback, tmp_path, *more, model=None, ckpt_path=None, **options):
    model = Model() if model is None else model
    loader = torch.utils.data.DataLoader(Batches(), batch_size=None)
    trainer = lightning.Trainer(callbacks=[callback, *more], default_root_dir=tmp_path, **QUIET, **options)
    trainer.fit(model, loader, loader, ckpt_path=ckpt_path)
    return model, trainer


@pytest.mark.parametrize("accumulate", [1, 4])
def test_centres_and_average_move_once_a_real_step(accumulate, tmp_path):
    callback = LayerMatchCallback(ema_momentum=0.5)
    options = {
        "max_epochs": 1,
        "accumulate_grad_batches": accumulate,
        "limit_val_batches": 0,
        "enable_checkpointing": False,
    }
    model, trainer = fit(callback, tmp_path, **options)
    assert trainer.global_step == 8 // accumulate
    rows = [*model.rows[::accumulate], model.classifier.weight.detach()]
    expected = rows[0].clone()
    for row in rows[1:]:
        expected = expected.lerp(row, 0.5)
    torch.testing.assert_close(model.criterion.state_dict()["centres.classifier_weight"], expected)
    torch.testing.assert_close(callback.average.average.classifier.weight, expected)
    assert "criterion.centres.classifier_weight" not in callback.state_dict()["average"]


@pytest.mark.parametrize("evaluate_average", [True, False])
def test_the_average_is_validated_and_the_live_weights_come_back(evaluate_average, tmp_path):
    callback = LayerMatchCallback(ema_momentum=0.9, evaluate_average=evaluate_average)
    options = {"max_epochs": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    model, _ = fit(callback, tmp_path, **options)
    live, average = model.classifier.weight.detach(), callback.average.average.classifier.weight
    assert not torch.equal(live, average)
    assert torch.equal(model.seen[-1], average if evaluate_average else live)


@pytest.mark.parametrize(
    ("precision", "fused", "warned"), [("16-mixed", False, True), ("16-mixed", True, False), ("32-true", False, False)]
)
def test_fp16_beside_an_optimizer_that_is_not_fused_draws_a_warning(precision, fused, warned):
    """On a stand-in for the trainer: 16-mixed needs a GPU."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1, fused=fused)
    trainer = types.SimpleNamespace(precision=precision, optimizers=[optimizer], global_step=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LayerMatchCallback().on_train_start(trainer, Model())
    assert [str(warning.message)[:63] for warning in caught] == (
        ["precision is 16-mixed and SGD was built without fused=True, so "] if warned else []
    )


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_the_average_is_tested_and_predicted_with_and_the_live_weights_come_back(stage, tmp_path):
    callback = LayerMatchCallback(ema_momentum=0.9)
    model, trainer = fit(callback, tmp_path, max_epochs=1, limit_val_batches=0, enable_checkpointing=False)
    live, average = model.classifier.weight.detach().clone(), callback.average.average.classifier.weight
    loader = torch.utils.data.DataLoader(Batches(), batch_size=None)
    getattr(trainer, stage)(model, loader)
    assert torch.equal(model.seen[-1], average)
    assert torch.equal(model.classifier.weight, live)
    assert not torch.equal(live, average)


def test_a_validation_that_fails_leaves_the_live_weights_behind(tmp_path):
    callback, model = LayerMatchCallback(ema_momentum=0.9), Model()
    model.validation_step = lambda batch, batch_idx: (_ for _ in ()).throw(ArithmeticError)
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    with pytest.raises(ArithmeticError):
        fit(callback, tmp_path, model=model, **options)
    assert not torch.equal(model.classifier.weight, callback.average.average.classifier.weight)


def test_weights_of_the_module_itself_are_averaged_and_an_average_alone_needs_no_criterion(tmp_path):
    model = Model()
    del model.criterion
    model.scale = nn.Parameter(torch.ones(3))
    model.training_step = lambda batch, batch_idx: (
        (model.scale * model.classifier(model.body(batch[0]))).square().mean()
    )
    callback = LayerMatchCallback(ema_momentum=0.5)
    fit(callback, tmp_path, model=model, max_epochs=1, limit_val_batches=0, enable_checkpointing=False)
    average = dict(callback.average.average.named_parameters())["scale"]
    assert not torch.equal(average, torch.ones(3))
    assert not torch.equal(average, model.scale)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_saved_and_loaded_goes_on_with_the_same_bits(accumulate, tmp_path):
    options = {"limit_val_batches": 0, "max_epochs": 2, "accumulate_grad_batches": accumulate}
    keep = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path / "kept", filename="{epoch}", save_top_k=-1)
    whole, callback = Model(), LayerMatchCallback(ema_momentum=0.9)
    fit(callback, tmp_path / "whole", keep, model=whole, **options)
    resumed, again = Model(), LayerMatchCallback(ema_momentum=0.9)
    fit(again, tmp_path / "rest", model=resumed, ckpt_path=tmp_path / "kept/epoch=0.ckpt", **options)
    assert (len(whole.rows), len(resumed.rows)) == (16, 8)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    for name, tensor in callback.average.state_dict().items():
        assert torch.equal(tensor, again.average.state_dict()[name]), name


def test_a_module_without_a_criterion_is_refused(tmp_path):
    model = Model()
    del model.criterion
    with pytest.raises(ValueError, match="Model holds no criterion of layermatch"):
        fit(LayerMatchCallback(), tmp_path, model=model, max_steps=1)
    with pytest.raises(ValueError, match=r"ema_momentum is 1\.5"):
        LayerMatchCallback(ema_momentum=1.5)
