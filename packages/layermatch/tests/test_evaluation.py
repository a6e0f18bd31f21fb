import torch
from torch import nn

from layermatch import split_classifier
from layermatch.training.evaluation import evaluate, row_norm


class Brightness(nn.Module):
    """Class 1 where the image is brighter than its mean; dropout and BatchNorm to see the mode."""

    def __init__(self):
        super().__init__()
        self.noise = nn.Dropout(0.9)
        self.last = nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.last.weight.copy_(torch.tensor([[0.0], [1.0]]))

    def forward(self, x):
        return self.last(self.noise(x.mean((1, 2, 3))[:, None]))


def test_accuracy_and_confusion():
    model = split_classifier(Brightness()).train()
    images = torch.cat([torch.full((700, 1, 2, 2), 10), torch.full((500, 1, 2, 2), 200)]).to(torch.uint8)
    labels = torch.cat([torch.zeros(700), torch.ones(500)]).long()
    labels[:7] = 1
    found = evaluate(
        model,
        zip(images.split(512), labels.split(512), strict=True),
        classes=2,
        constants=(torch.full((1, 1, 1, 1), 100.0), torch.ones(1, 1, 1, 1)),
        channels=1,
        autocast=torch.autocast("cpu", torch.bfloat16, enabled=False),
    )
    assert found.confusion.tolist() == [[693, 0], [7, 500]]
    assert found.accuracy == 100 * 1193 / 1200
    assert model.training
    assert model.body.noise.training


def test_row_norm():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    assert row_norm(layer) == 3.0
    assert row_norm(nn.ReLU()) == 0.0
