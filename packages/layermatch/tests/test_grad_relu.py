import pytest
import torch
from torch import nn

from layermatch import grad_relu_logits

SHAPES = [(1, 1, 2), (7, 5, 2), (64, 64, 10), (512, 128, 100)]


def case(shape, dtype, bias=True):
    generator = torch.Generator().manual_seed(sum(shape))
    samples, width, classes = shape
    classifier = nn.Linear(width, classes, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
    features = torch.randn(samples, width, generator=generator, dtype=dtype, requires_grad=True)
    upstream = torch.randn(samples, classes, generator=generator, dtype=dtype)
    return features, classifier, upstream


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_feature_gradient_bits_equal_the_plain_ones(shape, dtype, bias):
    features, classifier, upstream = case(shape, dtype, bias)
    plain = classifier(features)
    cut = grad_relu_logits(features, classifier)
    assert torch.equal(plain, cut)
    assert cut.dtype == plain.dtype
    (expected,) = torch.autograd.grad(plain, features, upstream, retain_graph=True)
    (found,) = torch.autograd.grad(cut, features, upstream, retain_graph=True)
    assert torch.equal(expected, found)
    assert torch.autograd.grad(cut, list(classifier.parameters()), upstream, allow_unused=True) == (None,) * (1 + bias)


def test_a_head_of_several_layers_is_cut_whole():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    features = torch.randn(5, 6, requires_grad=True)
    upstream = torch.randn(5, 3)
    cut = grad_relu_logits(features, head)
    assert torch.equal(cut, head(features))
    (expected,) = torch.autograd.grad(head(features), features, upstream)
    (found,) = torch.autograd.grad(cut, features, upstream, retain_graph=True)
    assert torch.equal(expected, found)
    assert torch.autograd.grad(cut, list(head.parameters()), upstream, allow_unused=True) == (None,) * 6


def test_a_linear_with_a_forward_of_its_own_keeps_it():
    class Cosine(nn.Linear):
        def forward(self, input):
            return nn.functional.linear(input, nn.functional.normalize(self.weight), self.bias)

    torch.manual_seed(0)
    head, features = Cosine(6, 3), torch.randn(5, 6, requires_grad=True)
    cut = grad_relu_logits(features, head)
    assert torch.equal(cut, head(features))
    assert torch.autograd.grad(cut.sum(), list(head.parameters()), allow_unused=True) == (None, None)


def test_a_parametrised_linear_is_cut_at_its_own_parameters():
    torch.manual_seed(0)
    head = nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))
    features = torch.randn(5, 6, requires_grad=True)
    cut = grad_relu_logits(features, head)
    assert torch.equal(cut, head(features))
    assert torch.autograd.grad(cut.sum(), list(head.parameters()), allow_unused=True) == (None,) * 3


def test_autocast_gives_the_plain_calls_dtype_and_bits():
    features, classifier, _ = case((64, 64, 10), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        plain, cut = classifier(features), grad_relu_logits(features, classifier)
    assert cut.dtype == torch.bfloat16
    assert torch.equal(plain, cut)


def test_another_width_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"\(4, 7\), 7 wide, and the classifier takes 8"):
        grad_relu_logits(torch.zeros(4, 7), nn.Linear(8, 3))
