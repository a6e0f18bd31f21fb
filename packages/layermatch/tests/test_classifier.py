import pytest
import torch
from torch import nn

from layermatch import LayerMatch, split_classifier


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU())
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.body(x))


class Answer:
    def __init__(self, logits):
        self.logits = logits


class WithOutputObject(Plain):
    def forward(self, x):
        return Answer(super().forward(x))


class GoesOn(Plain):
    def forward(self, x):
        return super().forward(x).log_softmax(-1)


class AuxiliaryLast(Plain):
    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Linear(8, 5)


def images(n=4):
    return torch.randn(n, 3, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Plain, WithOutputObject])
def test_features_and_classifier_give_what_the_model_gave(kind):
    torch.manual_seed(0)
    model = kind()
    expected = model(images())
    expected = getattr(expected, "logits", expected)
    names = set(model.state_dict())
    split = split_classifier(model)
    features = split(images())
    assert features.shape == (4, 8)
    assert torch.equal(split.classifier(features), expected)
    assert torch.equal(split.logits(images()), expected)
    assert split.classifier_name == "last"
    assert {id(p) for p in split.parameters()} >= {id(p) for p in split.classifier.parameters()}
    assert set(split.whole_state_dict()) == names
    fresh = kind()
    fresh.load_state_dict(split.whole_state_dict())
    again = fresh(images())
    assert torch.equal(getattr(again, "logits", again), expected)


def test_a_sequential_and_a_named_layer_work():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    expected = model(images())
    split = split_classifier(model, classifier="3")
    assert torch.equal(split.logits(images()), expected)


def test_the_layer_keeps_no_features_between_calls():
    split = split_classifier(Plain())
    split(images())
    assert split.body.get_submodule("last").seen is None


def test_an_auxiliary_head_registered_last_is_noticed_and_naming_helps():
    split = split_classifier(AuxiliaryLast())
    with pytest.raises(ValueError, match=r"AuxiliaryLast does not return what its layer 'auxiliary'.*classifier='...'"):
        split(images())
    assert split_classifier(AuxiliaryLast(), classifier="last")(images()).shape == (4, 8)


def test_a_model_that_goes_on_after_its_last_layer_is_refused():
    with pytest.raises(ValueError, match=r"GoesOn does not return what its layer 'last'"):
        split_classifier(GoesOn())(images())


def test_features_that_are_not_rows_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 3, 2, 2\), and features must be \(N, D\)"):
        split_classifier(nn.Sequential(nn.Linear(2, 5)))(images())


def test_what_cannot_be_split_says_how_to_name_the_layer():
    with pytest.raises(ValueError, match=r"Sequential has no torch.nn.Linear.*classifier='...'"):
        split_classifier(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()))
    with pytest.raises(ValueError, match=r"Plain has no layer named 'fc'. Its linear layers are: body.1, last"):
        split_classifier(Plain(), classifier="fc")
    with pytest.raises(ValueError, match=r"SplitModel already"):
        split_classifier(split_classifier(Plain()))
    with pytest.raises(ValueError, match=r"Linear has no torch.nn.Linear inside"):
        split_classifier(nn.Linear(4, 3))


def test_a_step_through_the_split_model_trains_everything():
    torch.manual_seed(0)
    split = split_classifier(Plain())
    criterion = LayerMatch(split.classifier, threshold=0.0)
    labelled, weak, strong = split(images(12)).split([4, 4, 4])
    criterion(labelled=(labelled, torch.tensor([0, 1, 2, 0])), weak=weak, strong=strong).loss.backward()
    assert all(parameter.grad is not None for parameter in split.parameters())


@pytest.mark.parametrize(
    ("name", "layer", "width", "side"),
    [
        ("resnet18", "fc", 512, 32),
        ("mobilenet_v3_small", "classifier.3", 1024, 32),
        ("vit_b_16", "heads.head", 768, 224),
        ("convnext_tiny", "classifier.2", 768, 32),
        ("vgg11", "classifier.6", 4096, 32),
    ],
)
def test_torchvision_classifiers_are_found(name, layer, width, side):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed (extra: vision)")
    with torch.device("meta"):
        split = split_classifier(models.get_model(name, num_classes=7))
        assert split.classifier_name == layer
        assert split.classifier.out_features == 7
        assert split(torch.empty(2, 3, side, side)).shape == (2, width)
