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
        ("mobilenet_v2", "classifier.1", 1280, 32),
        ("mobilenet_v3_small", "classifier.3", 1024, 32),
        ("efficientnet_b0", "classifier.1", 1280, 32),
        ("regnet_y_400mf", "fc", 440, 32),
        ("densenet121", "classifier", 1024, 32),
        ("swin_t", "head", 768, 32),
        ("vit_b_16", "heads.head", 768, 224),
        ("convnext_tiny", "classifier.2", 768, 32),
        ("vgg11", "classifier.6", 4096, 32),
    ],
)
def test_torchvision_classifiers_are_found(name, layer, width, side):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed (extra: vision)")
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # a RegNet reads numbers while it is built
        split = split_classifier(models.get_model(name, num_classes=7))
        assert split.classifier_name == layer
        assert split.classifier.out_features == 7
        assert split(torch.empty(2, 3, side, side)).shape == (2, width)


def gives_the_same(model, x, layer):
    """The split model's logits are the model's, bit for bit, in training too."""
    answers = []
    for training in (False, True):
        model.train(training)
        torch.manual_seed(1)
        answer = model(x)
        answers.append(getattr(answer, "logits", answer))
    before, expected = answers
    split = split_classifier(model)
    assert split.classifier_name == layer
    torch.manual_seed(1)
    assert torch.equal(split.train().logits(x), expected)
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        assert torch.equal(split.eval().logits(x), before)
    criterion = LayerMatch(split.classifier, threshold=0.0)
    labelled, weak, strong = split.train()(x).split([2, 1, 1])
    criterion(labelled=(labelled, torch.tensor([0, 1])), weak=weak, strong=strong).loss.backward()
    assert split.classifier.weight.grad.abs().max() > 0


TINY = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_labels": 7,
}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 7}
TRANSFORMERS = {
    "ViT": (TINY | {"hidden_dropout_prob": 0.1}, "classifier"),
    "ConvNext": (STAGES | {"num_stages": 2}, "classifier"),
    "ResNet": (STAGES | {"embedding_size": 8}, "classifier.1"),
    "Dinov2": ({name: TINY[name] for name in TINY if name != "intermediate_size"} | {"mlp_ratio": 2}, "classifier"),
}


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_transformers_image_classifiers_are_split(family):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; it is no dependency")
    options, layer = TRANSFORMERS[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**options)
    model = getattr(transformers, f"{family}ForImageClassification")(config)
    gives_the_same(model, torch.randn(4, 3, 32, 32), layer)
    model = getattr(transformers, f"{family}ForImageClassification")(config)
    pixels = torch.randn(2, 3, 32, 32)
    assert split_classifier(model)(pixel_values=pixels, return_dict=False).shape[0] == 2


def test_a_transformer_with_two_heads_is_refused_in_words():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; it is no dependency")
    split = split_classifier(transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**TINY)))
    with pytest.raises(
        ValueError, match=r"not its classifier: without it the model stops with RuntimeError.*two heads"
    ):
        split(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r"pixel|channel|size"):  # the model's own mistake stays its own sentence
        split(torch.randn(2, 5, 32, 32))


@pytest.mark.parametrize(
    ("name", "options", "layer"),
    [
        ("resnet10t", {}, "fc"),
        ("convnext_atto", {}, "head.fc"),
        ("efficientnet_lite0", {"drop_rate": 0.2}, "classifier"),
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}, "head"),
    ],
)
def test_timm_classifiers_are_split(name, options, layer):
    timm = pytest.importorskip("timm", reason="timm is not installed; it is no dependency")
    torch.manual_seed(0)
    gives_the_same(timm.create_model(name, num_classes=7, **options), torch.randn(4, 3, 32, 32), layer)


class Several(nn.Module):
    """A head of several layers, with dropout before its last one."""

    def __init__(self):
        super().__init__()
        self.body = nn.Flatten()
        self.head = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x):
        return self.head(self.body(x))


def test_a_head_of_several_layers_is_cut_before_its_last_or_named_whole():
    gives_the_same(Several(), images(), "head.3")
    torch.manual_seed(0)
    model = Several().eval()
    expected = model(images())
    split = split_classifier(model, classifier="head")
    assert torch.equal(split.logits(images()), expected)
    features = split(images(12).requires_grad_())
    assert features.shape == (12, 12)
    with pytest.raises(ValueError, match="the classifier is a Sequential"):
        LayerMatch(split.classifier)
    criterion = LayerMatch(split.classifier, avg_clustering=None, threshold=0.0)
    out = criterion(labelled=(features[:4], torch.tensor([0, 1, 2, 0])), weak=features[4:8], strong=features[8:])
    gradients = torch.autograd.grad(out.unlabelled_loss, list(split.classifier.parameters()), allow_unused=True)
    assert gradients == (None,) * 4


class InADictionary(Plain):
    def forward(self, x):
        return {"logits": super().forward(x), "hidden": x}


class InATuple(Plain):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize("kind", [InADictionary, InATuple])
def test_logits_are_found_within_what_the_model_returns(kind):
    torch.manual_seed(0)
    model = kind()
    expected = Plain.forward(model, images())
    assert torch.equal(split_classifier(model).logits(images()), expected)


def test_a_mistake_of_the_models_own_stays_its_own():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        split_classifier(Plain())(torch.randn(4, 3, 5, 5))


def test_a_compiled_model_is_refused_and_a_split_one_can_be_compiled():
    with pytest.raises(ValueError, match=r"OptimizedModule already.*wrap or compile the result"):
        split_classifier(torch.compile(Plain(), backend="eager"))
    with pytest.raises(ValueError, match=r"DataParallel already"):
        split_classifier(nn.DataParallel(Plain()))
    split = split_classifier(Plain())
    expected = split(images())
    split.compile(backend="eager", fullgraph=True)
    assert torch.equal(split(images()), expected)
    assert split.body.get_submodule("last").seen is None


def test_a_softmax_behind_the_classifier_is_named_as_what_must_go():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(-1))
    split = split_classifier(model)
    with pytest.raises(ValueError, match=r"Take away what comes behind it \(a softmax .*Its linear layers are: 1\."):
        split(torch.randn(2, 3, 2, 2))
