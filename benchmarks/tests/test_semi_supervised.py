"""The semi-supervised recipe: profiles, ABC's losses against their sums, arms and their phases, and whole runs on digits."""

import math
import sys

import pytest
import torch
from torch import nn

from layermatch.methods import fixmatch
from layermatch.models.small_cnn import SmallCNN
from reproduce.imwa import recipes
from reproduce.imwa.semi_supervised import recipe, run
from reproduce.imwa.semi_supervised.balanced import (
    Coins,
    TwoHeads,
    balanced_loss,
    labelled_rates,
    unlabelled_rates,
)
from reproduce.imwa.semi_supervised.evaluation import Judge, tail_accuracy
from reproduce.imwa.semi_supervised.profiles import PROFILES, draw_parts, profile_of
from reproduce.imwa.semi_supervised.training import Pool, Settings, Views, decay_weights, step_loss, views_of
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import read_records

SETTINGS = Settings(
    steps=20, batch_size=4, unlabelled_ratio=2, threshold=0.3, learning_rate=0.01, shift=1, mirror=False
)  # fmt: skip
CIFAR = torch.arange(10).repeat(5000)
COUNTS = {  # of the paper page: labelled and unlabelled images in all
    "darp-50": (4_196, 8_397), "darp-100": (3_720, 7_443), "darp-150": (3_496, 6_996), "darp-100-1": (3_720, 30_000),
    "darp-100-reversed": (3_720, 7_443), "abc-100": (2_478, 9_922), "daso-100": (1_236, 9_922),
    "darp-cifar100": (9_527, 4_741), "abc-cifar100": (6_333, 9_527), "crest-100-10": (1_244, 12_406),
}  # fmt: skip


@pytest.mark.parametrize(("name", "totals"), COUNTS.items())
def test_the_profiles_have_the_published_counts(name, totals):
    profile = PROFILES[name]
    labels = CIFAR if profile.classes == 10 else torch.arange(100).repeat(500)
    parts = draw_parts(profile, labels, classes=profile.classes, seed=None)
    assert (len(parts.labelled), len(parts.unlabelled)) == totals
    assert len(parts.unlabelled.unique()) == totals[1]
    common = set(parts.labelled.tolist()) & set(parts.unlabelled.tolist())
    assert len(common) == (totals[0] if profile.share else 0)


def test_a_seed_draws_images_and_which_class_is_rare_and_no_seed_takes_the_first():
    labels = torch.cat([torch.arange(5).repeat(40), torch.tensor([-1, -1])])
    profile = profile_of("8/16/4/2/reversed")
    fixed = draw_parts(profile, labels, classes=5, seed=None)
    assert fixed.ranks == [0, 1, 2, 3, 4]
    assert fixed.labelled[:8].tolist() == list(range(0, 40, 5))
    one, same, other = (draw_parts(profile, labels, classes=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.labelled, same.labelled)
    assert one.ranks != other.ranks
    counts = torch.bincount(labels[one.labelled], minlength=5)
    assert counts[torch.tensor(one.ranks)].tolist() == [8, 5, 4, 2, 2]
    unlabelled = torch.bincount(labels[one.unlabelled], minlength=5)
    assert unlabelled[torch.tensor(one.ranks)].tolist() == [8, 9, 11, 13, 16]
    assert int(labels[one.unlabelled].min()) >= 0


@pytest.mark.parametrize("text", ["darp", "1/2/3", "a/b/1/1", "10/10/20/1", "10/10/1/0.5", "10/10/1/1/1"])
def test_a_profile_that_is_none_is_named(text):
    with pytest.raises(UserError, match=f"--profile is '{text}'"):
        profile_of(text)


def test_a_profile_of_another_number_of_classes_is_refused():
    with pytest.raises(UserError, match=r"profile is one of 100 classes, and the data have 10"):
        draw_parts(PROFILES["abc-cifar100"], CIFAR, classes=10, seed=0)


def test_abcs_losses_equal_their_sums():
    generator = torch.Generator().manual_seed(4)

    def draw(*size):
        return 2.0 * torch.randn(*size, dtype=torch.float64, generator=generator)

    logits, weak, strong = draw(30, 3), draw(50, 3), [draw(50, 3), draw(50, 3)]
    labels = torch.randint(3, (30,), generator=generator)
    coins = Coins(torch.rand(30, generator=generator), torch.rand(50, generator=generator))
    counts, progress, threshold = [20, 10, 5], 0.4, 0.7
    found = balanced_loss(
        (logits, labels), weak, strong=strong, rates=labelled_rates(counts), progress=progress, threshold=threshold,
        coins=coins,
    )  # fmt: skip

    def shares(row):
        total = sum(math.exp(value) for value in row)
        return [math.exp(value) / total for value in row]

    first = 0.0
    for row, label, coin in zip(logits.tolist(), labels.tolist(), coins.labelled.tolist(), strict=True):
        if coin < 5 / counts[label]:
            first -= math.log(shares(row)[label]) / 30
    second, used = 0.0, 0
    for number, (row, coin) in enumerate(zip(weak.tolist(), coins.unlabelled.tolist(), strict=True)):
        q = shares(row)
        guess = q.index(max(q))
        if max(q) >= threshold and coin < 1 - progress * (1 - 5 / counts[guess]):
            used += 1
            for view in strong:
                logs = [math.log(value) for value in shares(view[number].tolist())]
                second -= sum(a * b for a, b in zip(q, logs, strict=True)) / 50
    assert 0 < used < 50
    assert float(found) == pytest.approx(first + second, rel=1e-9)


def test_the_coins_rates_go_from_one_to_the_labelled_ones():
    rates = labelled_rates([100, 50, 10])
    assert rates.tolist() == pytest.approx([0.1, 0.2, 1.0])
    assert unlabelled_rates(rates, 0.0).tolist() == [1.0, 1.0, 1.0]
    assert unlabelled_rates(rates, 0.5).tolist() == pytest.approx([0.55, 0.6, 1.0])
    assert unlabelled_rates(rates, 1.0).tolist() == pytest.approx(rates.tolist())
    with pytest.raises(ValueError, match="Class 1 has no labelled sample"):
        labelled_rates([3, 0])


def pool(images: int = 12) -> Pool:
    generator = torch.Generator().manual_seed(0)
    size = (images, 1, 8, 8)
    return Pool(
        labelled=torch.randint(0, 256, size, generator=generator, dtype=torch.uint8),
        labels=torch.arange(images) % 3,
        unlabelled=torch.randint(0, 256, size, generator=generator, dtype=torch.uint8),
        constants=(torch.full((1, 1, 1, 1), 128.0), torch.full((1, 1, 1, 1), 1 / 64)),
        channels=1,
    )


def loss_of(model: TwoHeads, views: Views, *, step: int = 0) -> torch.Tensor:
    criterion = fixmatch(model.classifier, threshold=SETTINGS.threshold)
    rates, generator = labelled_rates([4, 4, 4]), torch.Generator().manual_seed(1)
    return step_loss(
        model, criterion, views=views, rates=rates, step=step, generator=generator, settings=SETTINGS
    )  # fmt: skip


def views(step: int = 0, replica: int = 0) -> Views:
    generator = torch.Generator().manual_seed(step)
    return views_of(pool(), step=step, seed=0, replica=replica, generator=generator, settings=SETTINGS)


def test_a_step_is_fixmatchs_loss_and_abcs_and_each_head_learns_its_own():
    torch.manual_seed(0)
    model = TwoHeads(SmallCNN(3, channels=1), balanced=True).train()
    whole, balanced = loss_of(model, views()), model.balanced
    whole.backward()
    features = next(model.split.parameters()).grad.clone()
    heads = [head.weight.grad.clone() for head in (model.classifier, balanced)]
    assert all(float(grad.abs().sum()) > 0 for grad in (features, *heads))
    model.zero_grad()
    model.balanced = None
    plain = loss_of(model, views())
    plain.backward()
    torch.testing.assert_close(model.classifier.weight.grad, heads[0])  # ABC's loss does not reach FixMatch's head
    assert not torch.allclose(next(model.split.parameters()).grad, features)  # and reaches the features
    assert float(plain.detach()) < float(whole.detach())
    assert model.predictor is model.classifier


def test_fixmatchs_part_takes_both_strong_views_as_one_mean():
    torch.manual_seed(0)
    model, seen = TwoHeads(SmallCNN(3, channels=1), balanced=False).eval(), views()
    with torch.no_grad():
        weak, strong = model.classifier(model(seen.weak)), [model.classifier(model(view)) for view in seen.strong]
        labelled = model.classifier(model(seen.labelled))
    total = nn.functional.cross_entropy(labelled, seen.labels)
    confidence, guess = weak.softmax(1).max(1)
    for view in strong:
        losses = nn.functional.cross_entropy(view, guess, reduction="none")
        total = total + 0.5 * ((confidence >= SETTINGS.threshold) * losses).mean()
    torch.testing.assert_close(loss_of(model, seen), total)


def test_the_images_of_a_step_are_the_replicas_own():
    first, again, other, later = views(3), views(3), views(3, replica=1), views(4)
    assert torch.equal(first.weak, again.weak)
    assert not torch.equal(first.labels, other.labels) or not torch.equal(first.weak, other.weak)
    assert not torch.equal(first.weak, later.weak)
    assert first.weak.shape == first.strong[0].shape == (8, 1, 8, 8)
    assert not torch.equal(*first.strong)
    assert len(first.labels) == 4


def test_the_decay_multiplies_trained_parameters_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decay_weights(model, learning_rate=0.5)
    for name, value in model.state_dict().items():
        trained = name in ("0.weight", "1.weight", "1.bias")
        torch.testing.assert_close(value, before[name] * 0.99 if trained else before[name], msg=name)


def numbers(**changed) -> run.Numbers:
    settings = {"settings": SETTINGS, "method": "abc", "replicas": 3, "episodes": 5, "decay": None}
    return run.Numbers(**settings, optimizer_state="average", **changed)


def test_arms_spend_what_they_say():
    found = {name: run.phases(arm, numbers(), seed=7) for name, arm in run.ARMS.items()}
    assert found["single"] == [run.Phase(1, 1, 0, 20, 7)]
    assert found["single-mt"] == [run.Phase(1, 1, 0, 60, 7)]
    assert found["batch-mb"] == [run.Phase(1, 1, 0, 20, 7)]
    assert found["mwa"] == [run.Phase(3, 1, 0, 20, 7)]
    assert found["imwa"] == [run.Phase(3, 5, 0, 20, 7)]
    start, rest = found["mwa-shared"]
    assert start == run.Phase(1, 1, 0, 2, 7)
    assert rest[:4] == (3, 1, 2, 18)
    assert rest.seed != 7  # or replica 0 would draw the start's views again
    assert numbers().of(run.ARMS["batch-mb"]).batch_size == 12
    for name, arm in run.ARMS.items():
        images = sum(p.replicas * p.steps for p in found[name]) * numbers().of(arm).batch_size
        assert images == pytest.approx(numbers().cost(arm) * 20 * 4), name


def test_the_tail_is_the_last_third_by_rank_and_gains_are_against_the_replicas():
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    probable = torch.eye(3)[[0, 0, 1, 0, 0, 2]]
    assert tail_accuracy(probable, labels, ranks=[0, 2, 1]) == 50.0
    assert tail_accuracy(probable, labels, ranks=[2, 1, 0]) == 100.0
    answers = iter([probable, torch.eye(3)[[0, 0, 1, 1, 2, 0]], torch.eye(3)[[0, 0, 1, 1, 2, 2]]])
    judge = Judge(torch.zeros(6), labels, pool())
    judge.seen = lambda model: next(answers)
    for _ in range(2):
        judge.replica(None, last=True)
    judge.average(None)
    assert judge.replica_accuracy == pytest.approx((400 / 6 + 500 / 6) / 2)
    assert judge.gains == [pytest.approx(25.0)]
    assert judge.summed.argmax(1).tolist()[:3] == [0, 0, 1]
    fresh = Judge(judge.images, labels, judge.pool)
    fresh.load_state_dict(judge.state_dict())
    assert fresh.gains == judge.gains
    assert torch.equal(fresh.summed, judge.summed)


def main(*words: str) -> int:
    held, sys.argv = sys.argv, ["reproduce", "semi-supervised", *words]
    try:
        return recipes.main()
    finally:
        sys.argv = held


SMALL = ["--steps", "8", "--episodes", "2", "--batch-size", "8", "--seeds", "0"]


def kept(folder):
    """Numbers of every record, those of time apart."""
    records = read_records(folder / "records")
    return {(r.arm, r.seed): {n: v for n, v in r.numbers.items() if n != "cpu_seconds"} for r in records}


def test_a_whole_run_its_records_and_that_a_second_one_does_what_is_missing_alone(tmp_path, capsys):
    words = [*SMALL, "--replicas", "2", "--out", str(tmp_path)]
    assert main(*words) == 0
    printed = capsys.readouterr().out
    assert "ssl-digits-digits-10-abc: 159 labelled, 364 unlabelled, 359 test images." in printed
    assert "One seed: these rows show that the recipe runs" in printed
    records, found = read_records(tmp_path / "records"), kept(tmp_path)
    assert len(records) == 6
    assert found["single", 0]["steps"] == 8
    assert found["mwa-shared", 0]["steps"] == 1 + 2 * 7
    assert found["single", 0]["ensemble_accuracy"] is None
    assert found["mwa", 0]["ensemble_accuracy"] > 0
    gains = [found["imwa", 0][f"{name}_gain"] for name in ("first", "mean", "last")]
    assert gains[1] == pytest.approx((gains[0] + gains[2]) / 2)
    assert main(*words, "--seeds", "1", "--arms", "single", "--arms", "single-mt") == 0
    assert "Paired differences from single-mt" in capsys.readouterr().out
    later = read_records(tmp_path / "records")
    assert len(later) == 8
    assert [record for record in later if record.seed == 0] == records  # seconds too: nothing ran again


def test_one_replica_is_the_single_run_in_any_number_of_episodes(tmp_path):
    assert main(*SMALL, "--replicas", "1", "--arms", "single", "--arms", "imwa", "--out", str(tmp_path)) == 0
    found = kept(tmp_path)
    assert found["single", 0] == found["imwa", 0]


@pytest.mark.parametrize(("arm", "cut_at"), [("imwa", 11), ("mwa-shared", 13), ("mwa-shared", 2)])
def test_a_run_that_was_cut_ends_with_the_same_bits(arm, cut_at, tmp_path, monkeypatch):
    words = [*SMALL, "--replicas", "2", "--arms", arm]
    assert main(*words, "--out", str(tmp_path / "whole")) == 0
    plain, calls = run.step_loss, []

    def cut(*arguments, **settings):
        calls.append(settings["step"])
        if len(calls) == cut_at:
            raise UserError("cut")
        return plain(*arguments, **settings)

    monkeypatch.setattr(run, "step_loss", cut)
    assert main(*words, "--out", str(tmp_path / "cut")) == 2
    again = []
    monkeypatch.setattr(run, "step_loss", lambda *a, **b: [again.append(b["step"]), plain(*a, **b)][1])
    assert main(*words, "--out", str(tmp_path / "cut")) == 0
    steps = next(iter(kept(tmp_path / "whole").values()))["steps"]
    assert len(again) == steps - cut_at + 1  # a checkpoint at every step: nothing is done twice
    assert kept(tmp_path / "whole") == kept(tmp_path / "cut")
    last = [max((tmp_path / name / "checkpoints").rglob("step-*.pt")) for name in ("whole", "cut")]
    whole, resumed = (flattened(torch.load(path, weights_only=True)["iterative"]["live"]) for path in last)
    assert any("ema" in name for name in whole)
    assert whole.keys() == resumed.keys()
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []


def flattened(tree, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested dicts and lists under its path."""
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return {path: value for key, part in parts for path, value in flattened(part, f"{name}.{key}".strip(".")).items()}


def test_fixmatch_alone_on_ones_own_profile(tmp_path, capsys):
    words = [*SMALL, "--method", "fixmatch", "--profile", "20/30/4/2/reversed", "--arms", "imwa"]
    assert main(*words, "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "ssl-digits-20-30-4-2-reversed-fixmatch" in printed
    assert "Without the arm single-mt nothing here says whether averaging is worth its steps." in printed
    found = kept(tmp_path)["imwa", 0]
    assert found["ema_accuracy"] == found["ema_fixmatch_accuracy"]


def test_the_papers_protocol_on_made_images(tmp_path, capsys, monkeypatch):
    words = [
        "--scale",
        "paper",
        "--steps",
        "2",
        "--seeds",
        "0",
        "--arms",
        "single",
        "--model",
        "cnn",
        "--out",
        str(tmp_path),
    ]
    assert main(*words, "--profile", "abc-100", "--profile", "crest-100-10") == 0
    printed = capsys.readouterr().out
    assert "ssl-made-abc-100-abc: 2478 labelled, 9922 unlabelled, 20 test images" in printed
    assert "ssl-made-crest-100-10-abc: 1244 labelled, 12406 unlabelled" in printed
    assert "Images were made" in printed
    config = recipe.SemiSupervisedConfig(scale="paper")
    assert len(recipe.chosen_profiles(config)) == 18
    tried = recipe.SemiSupervisedConfig(scale="paper", steps=2)
    assert set(recipe.chosen_profiles(tried)) < set(recipe.chosen_profiles(config))
    assert recipe.seeds_of(tried) == (0,)
    assert recipe.seeds_of(config) == (0, 1, 2)
    assert recipe.source_of(config, PROFILES["abc-cifar100"]) == "torchvision:CIFAR100"


def test_what_cannot_run_is_refused_in_a_sentence(tmp_path, capsys, monkeypatch):
    out = ["--out", str(tmp_path / "out")]
    assert main("--data", "photos", *out) == 2
    assert "--profile is missing: how many images of photos" in capsys.readouterr().err
    assert main("--profile", "40/110/10/10", *out) == 2
    assert "Class 0 has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(run, "step_loss", lambda model, *a, **b: next(model.parameters()).sum() * float("nan"))
    assert main("--steps", "20", "--seeds", "0", "--arms", "single", *out) == 2
    assert "The loss of single is nan at step 19. Lower --learning-rate." in capsys.readouterr().err
