import numpy
import pytest
import torch
from PIL import Image

from layermatch.training.report import draw_confusion, draw_figures, draw_views, final_numbers

LINES = [
    {
        "step": step,
        "loss": 1.0,
        "labelled_loss": 0.5,
        "unlabelled_loss": 0.5,
        "mask_rate": step / 10,
        "classifier_norm": 2.0,
    }
    | ({"accuracy": 80.0 + step} if step % 2 else {})
    | ({"pseudo_label_accuracy": 90.0} if step > 5 else {})
    for step in range(10)
]


def test_accuracy_is_the_mean_of_the_last_four_evaluations_and_best_is_named_so():
    numbers = final_numbers([*LINES, {"step": 10, "accuracy": 70.0}])
    assert numbers["accuracy"] == pytest.approx((85 + 87 + 89 + 70) / 4)
    assert numbers["best_accuracy"] == 89.0
    assert numbers["last_accuracy"] == 70.0
    assert numbers["mask_rate"] == pytest.approx(0.85)
    assert numbers["pseudo_label_accuracy_all"] is None
    assert final_numbers([])["accuracy"] is None


@pytest.mark.parametrize("classes", [10, 45])
def test_figures_are_written(tmp_path, classes):
    names = [f"class {number}" for number in range(classes)]
    confusion = torch.eye(classes, dtype=torch.int64)
    made = draw_figures(tmp_path, LINES, title="layermatch, digits, seed 0", confusion=confusion, class_names=names)
    assert {path.name for path in made} == {
        "test_error.png", "losses.png", "classifier_norm.png", "pseudo_labels.png", "confusion.png",
    }  # fmt: skip
    for path in made:
        with Image.open(path) as image:
            assert image.width > 300


def test_a_class_without_test_images_and_grey_and_colour_views_draw(tmp_path):
    draw_confusion(tmp_path / "c.png", torch.zeros(3, 3, dtype=torch.int64), title="t", class_names=["a", "b", "c"])
    for channels in (1, 3):
        images = torch.zeros(4, channels, 8, 8, dtype=torch.uint8)
        assert draw_views(tmp_path / f"{channels}.png", {"a": images, "b": images}, title="t").is_file()


@pytest.mark.parametrize("classes", [2, 12])
def test_titles_and_names_of_any_length_stay_within_the_figure(tmp_path, classes):
    title = "fixmatch, a-name-of-a-folder-that-somebody-made-rather-long_and_goes_on_without_a_gap_to_break_at, seed 1234567"
    names = [f"a class with quite a long name, number {number}" for number in range(classes)]
    draw_confusion(tmp_path / "confusion.png", torch.eye(classes), title=title, class_names=names)
    views = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
    draw_views(tmp_path / "views.png", {"weak view": views, "strong view": views}, title=title)
    for name in ("confusion.png", "views.png"):
        pixels = torch.from_numpy(numpy.asarray(Image.open(tmp_path / name).convert("L")).copy())
        edges = torch.cat(
            [pixels[:, :2].flatten(), pixels[:, -2:].flatten(), pixels[:2].flatten(), pixels[-2:].flatten()]
        )
        assert int(edges.min()) == 255, name
        assert int(pixels.min()) < 50


def test_a_class_without_an_image_is_grey_and_not_zero(tmp_path):
    shares = []
    for number, last in enumerate(([0, 0], [1, 3])):
        path = tmp_path / f"{number}.png"
        draw_confusion(path, torch.tensor([[3, 1], last]), title="t", class_names=["a", "b"])
        shares.append((numpy.asarray(Image.open(path).convert("RGB")) == 0xEE).all(axis=2).mean())
    assert shares[0] > 0.2
    assert shares[1] < 0.01


def test_a_supervised_run_has_no_pseudo_label_figure(tmp_path):
    lines = [{"step": 0, "loss": 1.0, "labelled_loss": 1.0, "accuracy": 50.0}]
    made = draw_figures(tmp_path, lines, title="t", confusion=torch.eye(2, dtype=torch.int64), class_names=["a", "b"])
    assert "pseudo_labels.png" not in {path.name for path in made}
