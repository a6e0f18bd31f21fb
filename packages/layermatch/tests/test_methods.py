"""The methods by name: each is its weighting rule's own loop, bit for bit, and takes the settings that it names."""

import pytest
import torch
from torch import nn

from layermatch import METHODS, FlexMatchWeighting, FreeMatchWeighting, LayerMatch, build_method
from layermatch.methods import WEIGHTINGS, Supervised, layermatch, settings_of

STEPS, LABELLED, UNLABELLED, CLASSES, IMAGES = 20, 8, 24, 4, 60
SETTINGS = {"steps": STEPS, "classes": CLASSES, "images": IMAGES}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def batch(step):
    generator = torch.Generator().manual_seed(1000 + step)
    x, weak, noise = (torch.randn(rows, 6, generator=generator) for rows in (LABELLED, UNLABELLED, UNLABELLED))
    labels = torch.randint(CLASSES, (LABELLED,), generator=generator)
    return x, labels, weak, weak + 0.5 * noise, torch.randperm(IMAGES, generator=generator)[:UNLABELLED]


def losses_of(loss_of_step):
    """The losses of a run; `loss_of_step(step, classifier, labelled, labels, weak, strong, indices)`."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True)
    losses = []
    for step in range(STEPS):
        x, labels, weak, strong, indices = batch(step)
        parts = model[:2](torch.cat([x, weak, strong])).split([LABELLED, UNLABELLED, UNLABELLED])
        loss = loss_of_step(step, model[2], parts[0], labels, *parts[1:], indices)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def ours(make):
    criterion = None

    def loss(step, classifier, labelled, labels, weak, strong, indices):
        nonlocal criterion
        if criterion is None:
            criterion = make(classifier)
        else:
            criterion.update()
        return criterion(labelled=(labelled, labels), weak=weak, strong=strong, indices=indices).loss

    return losses_of(loss)


class Plain:
    """A rule's own loop, written out: nothing of the package is in it. Averages are moved in the lerp form."""

    def __init__(self, threshold=0.95):
        self.threshold = threshold

    def weights(self, step, q, confidence, pseudo, indices):
        return (confidence >= self.threshold).float()

    def extra(self, strong_logits, k):
        return None

    def __call__(self, step, classifier, labelled, labels, weak, strong, indices):
        loss = nn.functional.cross_entropy(classifier(labelled), labels)
        with torch.no_grad():
            q = torch.softmax(classifier(weak), dim=-1)
            confidence, pseudo = q.max(dim=-1)
            k = self.weights(step, q, confidence, pseudo, indices)
        strong_logits = classifier(strong)
        unlabelled = (k * nn.functional.cross_entropy(strong_logits, pseudo, reduction="none")).mean()
        extra = self.extra(strong_logits, k)
        return loss + 1.0 * (unlabelled if extra is None else unlabelled + extra)


class PlainPseudoLabel(Plain):
    def weights(self, step, q, confidence, pseudo, indices):
        ramp = min(step / (0.4 * STEPS), 1.0)
        return (confidence >= self.threshold).float() * ramp

    def __call__(self, step, classifier, labelled, labels, weak, strong, indices):
        return super().__call__(step, classifier, labelled, labels, weak, weak, indices)


class PlainFlexMatch(Plain):
    """TorchSSL's loop over images, as a list."""

    latest = None

    def weights(self, step, q, confidence, pseudo, indices):
        self.latest = self.latest or [-1] * IMAGES
        counts = [self.latest.count(c) for c in range(CLASSES)]
        most = max(*counts, self.latest.count(-1))
        beta = [count / most for count in counts]
        flexible = [self.threshold * (b / (2.0 - b)) for b in beta]
        k = [float(value >= flexible[c]) for value, c in zip(confidence.tolist(), pseudo.tolist(), strict=True)]
        for value, c, image in zip(confidence.tolist(), pseudo.tolist(), indices.tolist(), strict=True):
            if value >= self.threshold:
                self.latest[image] = c
        return torch.tensor(k)


def moved(average, batch):
    return average.lerp(batch, 1.0 - 0.999)


class PlainFreeMatch(Plain):
    def __init__(self):
        self.tau = torch.tensor(1.0 / CLASSES)
        self.p = self.h = torch.full((CLASSES,), 1.0 / CLASSES)

    def weights(self, step, q, confidence, pseudo, indices):
        self.tau = moved(self.tau, confidence.sum() / UNLABELLED)
        self.p = moved(self.p, q.sum(dim=0) / UNLABELLED)
        self.h = moved(self.h, torch.bincount(pseudo, minlength=CLASSES) / UNLABELLED)
        return (confidence >= (self.tau * (self.p / self.p.max()))[pseudo]).float()

    def extra(self, strong_logits, k):
        if not k.sum():
            return torch.zeros(())
        p_s = torch.softmax(strong_logits, dim=-1)
        mean = (k[:, None] * p_s).sum(dim=0) / k.sum()
        shares = torch.bincount(p_s.argmax(-1), weights=k, minlength=CLASSES).float() / k.sum()

        def inverse(x):
            return torch.where(x == 0, 0.0, 1.0 / x)

        a, b = self.p * inverse(self.h), mean * inverse(shares)
        return 0.001 * ((a / a.sum()) * torch.log(b / b.sum() + 1e-12)).sum()


class PlainSoftMatch(Plain):
    p = None

    def __init__(self):
        self.mean, self.variance = torch.tensor(1.0 / CLASSES), torch.tensor(1.0)

    def weights(self, step, q, confidence, pseudo, indices):
        mean = q.sum(dim=0) / UNLABELLED
        self.p = mean if self.p is None else moved(self.p, mean)
        aligned = q * ((1.0 / CLASSES + 1e-6) / (self.p + 1e-6))
        v = (aligned / aligned.sum(dim=-1, keepdim=True)).max(dim=-1).values
        self.mean, self.variance = moved(self.mean, v.mean()), moved(self.variance, v.var())
        return torch.exp(-((2.0 * (v - self.mean).clamp(max=0.0)) ** 2) / (2.0 * self.variance))


PLAIN = {
    "pseudolabel": lambda: PlainPseudoLabel(0.4),
    "fixmatch": lambda: Plain(0.4),
    "flexmatch": lambda: PlainFlexMatch(0.5),
    "freematch": PlainFreeMatch,
    "softmatch": PlainSoftMatch,
}
THRESHOLDS = {"pseudolabel": 0.4, "fixmatch": 0.4, "flexmatch": 0.5}


@pytest.mark.parametrize("method", PLAIN)
def test_o3_off_means_off_20_steps_bit_for_bit(method):
    expected = losses_of(PLAIN[method]())
    settings = SETTINGS | {"threshold": THRESHOLDS.get(method)}
    assert ours(lambda classifier: build_method(method, classifier, settings=settings)) == expected
    assert len(set(expected)) == STEPS
    if method == "pseudolabel":
        return
    off = {"grad_relu": False, "avg_clustering": None}
    rule = {"fixmatch": "fixed"}.get(method, method)
    assert (
        ours(lambda c: layermatch(c, weighting=rule, images=IMAGES, threshold=settings["threshold"], **off)) == expected
    )
    for on in ({"grad_relu": True, "avg_clustering": None}, {"grad_relu": False, "avg_clustering": "classifier"}):
        made = ours(
            lambda c, on=on: layermatch(c, weighting=rule, images=IMAGES, threshold=settings["threshold"], **on)
        )
        assert made != expected


def test_o3_each_method_is_another_one():
    runs = [tuple(ours(lambda c, m=m: build_method(m, c, settings=SETTINGS | {"threshold": 0.5}))) for m in METHODS]
    assert len(set(runs)) == len(METHODS) == 7


def test_o3_supervised_is_the_labelled_loss_alone():
    def plain(step, classifier, labelled, labels, weak, strong, indices):
        return nn.functional.cross_entropy(classifier(labelled), labels)

    assert ours(METHODS["supervised"]) == losses_of(plain)


def test_settings_are_matched_to_what_a_method_takes():
    assert settings_of("supervised") == set()
    assert settings_of("flexmatch") == {"classes", "images", "threshold", "unlabelled_weight", "corrupt"}
    assert {"weighting", "grad_relu", "avg_clustering", "momentum", "variant", "images"} <= settings_of("layermatch")
    classifier = nn.Linear(16, CLASSES)
    everything = SETTINGS | {"threshold": None, "unlabelled_weight": 0.5, "grad_relu": "agreement", "momentum": 0.9}
    for method in METHODS:
        criterion = build_method(method, classifier, settings=everything)
        assert isinstance(criterion, Supervised if method == "supervised" else LayerMatch)
        assert method == "supervised" or criterion.unlabelled_weight == 0.5
        assert criterion.needs_unlabelled == (method != "supervised")
    assert criterion.grad_relu == "agreement"
    assert criterion.weighting.threshold == 0.95
    with pytest.raises(ValueError, match=r"'fixmatsch'.*supervised, pseudolabel, fixmatch"):
        build_method("fixmatsch", classifier, settings={})


def test_layermatch_takes_rules_by_name_and_refuses_what_they_do_not_look_at():
    classifier = nn.Linear(16, CLASSES)
    kinds = [type(layermatch(classifier, weighting=name, images=IMAGES).weighting).__name__ for name in WEIGHTINGS]
    assert kinds == ["FixedThreshold", "FlexMatchWeighting", "FreeMatchWeighting", "SoftMatchWeighting"]
    rule = FreeMatchWeighting(CLASSES)
    assert layermatch(classifier, weighting=rule).weighting is rule
    assert layermatch(classifier, weighting="softmatch", variant="torchssl").weighting.variant == "torchssl"
    with pytest.raises(ValueError, match=r"threshold is 0.7, and weighting='freematch' learns its own"):
        layermatch(classifier, weighting="freematch", threshold=0.7)
    with pytest.raises(ValueError, match=r"threshold is 0.7, and weighting=FlexMatchWeighting has a threshold"):
        layermatch(classifier, weighting=FlexMatchWeighting(CLASSES, IMAGES), threshold=0.7)
    with pytest.raises(ValueError, match=r"weighting is 'freemtch'.*'fixed', 'flexmatch', 'freematch', 'softmatch'"):
        layermatch(classifier, weighting="freemtch")
    with pytest.raises(ValueError, match=r"weighting='flexmatch' needs the number of images"):
        layermatch(classifier, weighting="flexmatch")
    with pytest.raises(ValueError, match=r"weighting='softmatch' needs the number of classes"):
        layermatch(nn.Sequential(classifier), weighting="softmatch", avg_clustering=None)
    with pytest.raises(ValueError, match=r"steps is 0"):
        METHODS["pseudolabel"](classifier, steps=0)
