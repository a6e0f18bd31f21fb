"""The detection recipe: reading, views, losses, teacher, and a whole run on drawn squares."""

import json
import math
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from reproduce.imwa import recipes
from reproduce.imwa.detection.coco import Archive, labelled_part, read_split
from reproduce.imwa.detection.detector import build_detector, focal_loss
from reproduce.imwa.detection.teacher import MeanTeacher
from reproduce.imwa.detection.training import Settings, rate, step_loss
from reproduce.imwa.detection.views import resized, strong_view, weak_view
from scarce_common_utils.errors import UserError
from scarce_common_utils.records import read_records

SETTINGS = Settings(
    batch_size=2, sides=(64,), longest=107, burn_in=2, threshold=0.7, unsupervised_weight=4.0, learning_rate=0.1,
    warm_up=10, unlabelled=True,
)  # fmt: skip


def coco(folder: Path, *, images: int = 6, crowd: bool = False) -> Path:
    """A set of grey pictures with one white square each, in COCO's format, for train and test."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        listed, annotations = [], []
        for number in range(images):
            pixels = torch.full((3, 64, 96), 90, dtype=torch.uint8)
            x, y = (int(torch.randint(high, (), generator=generator)) for high in (64, 32))
            pixels[:, y : y + 32, x : x + 32] = 255
            name = f"{number}.png"
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "images" / split / name)
            listed.append({"id": number + 1, "file_name": name, "width": 96, "height": 64})
            annotations.append({"image_id": number + 1, "category_id": 7, "bbox": [x, y, 32, 32], "iscrowd": 0})
        if crowd:
            annotations.append({"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1})
            annotations.append({"image_id": 1, "category_id": 3, "bbox": [0, 0, 0, 9]})
        content = {
            "images": listed,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "square"}, {"id": 3, "name": "round"}],
        }
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder


def tarred(folder: Path) -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=".")
    return path


def test_a_tar_reads_as_its_folder_does(tmp_path):
    folder = coco(tmp_path / "squares", crowd=True)
    here, there = read_split(Archive(folder), "train"), read_split(Archive(tarred(folder)), "train")
    assert here.class_names == ("round", "square")  # in the order of their ids
    assert here.left_out == there.left_out == 2
    assert [labels.tolist() for labels in here.labels] == [[2]] * 6
    for index in range(6):
        assert torch.equal(here.image(index), there.image(index))
        left, top, right, bottom = here.boxes[index][0].int().tolist()
        assert (right - left, bottom - top) == (32, 32)
        assert int(here.image(index)[:, top:bottom, left:right].min()) == 255


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "annotations" / "train.json").unlink(), r"has no annotations/train.json"),
        (lambda folder: (folder / "annotations" / "train.json").write_text("{"), r"is no COCO annotation file"),
        (lambda folder: (folder / "annotations" / "train.json").write_text("[]"), r"is no COCO annotation file"),
        (lambda folder: (folder / "images" / "train" / "3.png").unlink(), r"annotations for 3.png, and no such image"),
    ],
)
def test_what_is_no_coco_folder_is_named(tmp_path, spoil, sentence):
    folder = coco(tmp_path / "squares")
    spoil(folder)
    with pytest.raises(UserError, match=sentence):
        read_split(Archive(folder), "train")


def test_images_that_cannot_be_read_and_archives_that_are_none_are_named(tmp_path):
    folder = coco(tmp_path / "squares")
    (folder / "images" / "train" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"images/train/0.png in .* cannot be decoded"):
        read_split(Archive(folder), "train").image(0)
    (tmp_path / "x.tar").write_bytes(b"no tar at all")
    with pytest.raises(UserError, match=r"x.tar cannot be read as an uncompressed tar"):
        Archive(tmp_path / "x.tar")
    with pytest.raises(UserError, match=r"does not exist"):
        Archive(tmp_path / "missing")


def test_the_labelled_share_is_counted_among_images_with_a_box(tmp_path):
    data = read_split(Archive(coco(tmp_path / "squares", images=11)), "train")
    labelled, unlabelled = labelled_part(data, 50.0, generator=torch.Generator().manual_seed(1))
    assert len(labelled) == 5
    assert sorted(labelled + unlabelled) == list(range(11))
    again, _ = labelled_part(data, 50.0, generator=torch.Generator().manual_seed(2))
    assert again != labelled
    with pytest.raises(UserError, match=r"--percent is 1: of 11 images with a box that leaves 0 labelled"):
        labelled_part(data, 1.0, generator=torch.Generator())


def test_boxes_follow_their_pixels_through_the_views(tmp_path):
    data = read_split(Archive(coco(tmp_path / "squares")), "train")
    mirrored = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        view = weak_view(data.image(0), data.boxes[0], generator=generator, sides=(32, 48, 64), longest=200)
        left, top, right, bottom = view.boxes[0].round().int().tolist()
        inside = view.image[0, top + 1 : bottom - 1, left + 1 : right - 1]
        assert int(inside.min()) > 250
        assert int((view.image[0] > 200).sum()) <= (bottom - top + 2) * (right - left + 2)
        mirrored += abs(float(view.boxes[0, 0]) / view.image.shape[-1] - float(data.boxes[0][0, 0]) / 96) > 1e-3
        assert strong_view(view.image, generator=generator).shape == view.image.shape
    assert 0 < mirrored < 12
    assert resized(data.image(0), data.boxes[0], side=64, longest=48).image.shape == (3, 32, 48)


def test_views_are_functions_of_their_generator_and_leave_the_image_alone():
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    kept = image.clone()
    views = [strong_view(image, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert torch.equal(image, kept)


def test_focal_loss_equals_its_sum_over_proposals():
    logits = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).float()
    labels = torch.tensor([0, 0, 1, 2, 3, 3, 0])
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        p = math.exp(row[label]) / sum(math.exp(value) for value in row)
        total += (1 - p) ** 1.5 * -math.log(p)
    assert float(focal_loss(logits, labels)) == pytest.approx(total / 7, rel=1e-5)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(focal_loss(logits, labels, power=0.0), plain)


def test_the_teacher_is_an_average_of_the_whole_state():
    student = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    teacher = MeanTeacher(student, decay=0.75)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student(torch.randn(8, 2))  # moves BatchNorm's statistics and its counter
    with torch.no_grad():
        student[0].weight.add_(1.0)
    teacher.update(student)
    for name, live in student.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * live if live.is_floating_point() else live
        torch.testing.assert_close(teacher.state_dict()[name], expected, msg=name)
    teacher.copy(student)
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    with pytest.raises(ValueError, match=r"decay is 2"):
        MeanTeacher(student, decay=2.0)


class Recorder(torch.nn.Module):
    """In place of a detector: remembers what it was given and answers with known losses and boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.calls: list[tuple[int, list[int]]] = []

    def forward(self, images, targets=None):
        if not self.training:
            boxes, scores = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 3), torch.tensor([0.71, 0.7, 0.1])
            return [{"boxes": boxes, "scores": scores, "labels": torch.tensor([1, 2, 1])} for _ in images]
        self.calls.append((len(images), [len(target["boxes"]) for target in targets]))
        values = {"loss_classifier": 1.0, "loss_box_reg": 10.0, "loss_objectness": 100.0, "loss_rpn_box_reg": 1000.0}
        return {name: self.scale * value for name, value in values.items()}


def test_losses_and_their_weights_before_and_after_the_burn_in(tmp_path):
    data = read_split(Archive(coco(tmp_path / "squares")), "train")
    student = Recorder()
    teacher = MeanTeacher(student, decay=0.5)

    def loss(step: int) -> float:
        generator = torch.Generator().manual_seed(step)
        found = step_loss(
            student, teacher, data=data, labelled=[0, 1], unlabelled=[2, 3], step=step, generator=generator,
            settings=SETTINGS,
        )  # fmt: skip
        return float(found.detach())

    assert loss(1) == 1111.0
    assert student.calls == [(4, [1, 1, 1, 1])]  # both views of two labelled images
    with torch.no_grad():
        student.scale.fill_(3.0)
    loss(1)
    assert float(teacher.model.scale) == 1.0  # before the end of the burn-in it does not move
    assert loss(2) == 3 * (1111.0 + 4 * 101.0)  # no box loss of the teacher's boxes
    assert float(teacher.model.scale) == 3.0  # at the end of the burn-in it is the student
    assert student.calls[-1] == (2, [1, 1])  # strong views alone; one box of each above the threshold
    with torch.no_grad():
        student.scale.fill_(5.0)
    loss(3)
    assert float(teacher.model.scale) == 4.0  # later it moves, before it writes boxes


def test_the_learning_rate_warms_up_and_stays():
    assert [round(rate(step, SETTINGS), 6) for step in (0, 5, 10, 400)] == [0.0001, 0.05005, 0.1, 0.1]


def test_backbones_take_their_own_weights_and_no_others(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    whole = resnet18(weights=None, num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "w.pt")
    model = build_detector(2, backbone="resnet18", side=64, longest=107, weights=tmp_path / "w.pt")
    assert torch.equal(model.backbone.body.layer1[0].conv1.weight, whole.layer1[0].conv1.weight)
    assert not model.backbone.body.conv1.weight.requires_grad
    torch.save({"other": torch.zeros(1)}, tmp_path / "o.pt")
    with pytest.raises(UserError, match=r"its tensors are not this backbone's: conv1.weight"):
        build_detector(2, backbone="resnet18", side=64, longest=107, weights=tmp_path / "o.pt")
    with pytest.raises(UserError, match=r"--weights are for a residual network"):
        build_detector(2, backbone="small", side=64, longest=107, weights=tmp_path / "w.pt")


def run(*words: str) -> int:
    import sys

    held, sys.argv = sys.argv, ["reproduce", "detection", *words]
    try:
        return recipes.main()
    finally:
        sys.argv = held


def test_a_whole_run_its_records_and_that_a_second_one_does_nothing(tmp_path, capsys):
    data = tarred(coco(tmp_path / "squares"))
    words = ["--data", str(data), "--percent", "50", "--steps", "4", "--burn-in", "2", "--episodes", "2"]
    words += ["--replicas", "2", "--batch-size", "1", "--side", "64", "--out", str(tmp_path / "out")]
    assert run(*words) == 0
    printed = capsys.readouterr().out
    assert "3 labelled of 6 training images, 6 test images, 4 steps, seeds 0, 1" in printed
    assert "teacher-imwa - teacher, AP50:" in printed
    assert "No evidence at this scale" in printed
    records = read_records(tmp_path / "out" / "records")
    assert sorted((record.arm, record.seed) for record in records) == sorted(
        (arm, seed) for arm in ("supervised", "teacher", "teacher-imwa") for seed in (0, 1)
    )
    assert run(*words) == 0
    assert read_records(tmp_path / "out" / "records") == records  # seconds too: nothing ran again
    assert run("--data", str(tmp_path / "none")) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_run_that_was_cut_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    from reproduce.imwa.detection import recipe

    data = coco(tmp_path / "squares")
    words = [
        "--data",
        str(data),
        "--percent",
        "50",
        "--steps",
        "6",
        "--burn-in",
        "3",
        "--episodes",
        "2",
        "--side",
        "64",
    ]
    words += ["--replicas", "2", "--batch-size", "1", "--seeds", "0", "--arms", "teacher-imwa"]
    assert run(*words, "--out", str(tmp_path / "whole")) == 0
    plain, calls = recipe.step_loss, []

    def cut(*arguments, **settings):
        calls.append(settings["step"])
        if len(calls) == 8:
            raise UserError("cut")
        return plain(*arguments, **settings)

    monkeypatch.setattr(recipe, "step_loss", cut)
    assert run(*words, "--out", str(tmp_path / "cut")) == 2
    monkeypatch.setattr(recipe, "step_loss", plain)
    assert run(*words, "--out", str(tmp_path / "cut")) == 0
    whole, resumed = (
        torch.load(next((tmp_path / name / "checkpoints").rglob("step-00000012.pt")), weights_only=True)
        for name in ("whole", "cut")
    )
    state, other = (flattened(found["iterative"]["live"]) for found in (whole, resumed))
    assert any(name.startswith("teacher") or ".teacher." in name for name in state)
    assert state.keys() == other.keys()
    assert [name for name, value in state.items() if not torch.equal(value, other[name])] == []


def flattened(tree, name: str = "") -> dict[str, torch.Tensor]:
    """Every tensor of nested dicts and lists under its path."""
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return {path: value for key, part in parts for path, value in flattened(part, f"{name}.{key}".strip(".")).items()}
