"""The card's head is what the Hub reads; its tables hold what was given; a licence stands there only if it was given."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import pytest

from scarce_common_utils.command_line import Operands, Option
from scarce_common_utils.intervals import Interval
from scarce_common_utils.model_card import Card, Classes, Metric, Paper, card_text, front_matter, settings_of
from scarce_common_utils.options import ModelOptions, RunOptions
from scarce_common_utils.provenance import command_under_way, tell_data

CARD = Card(
    title='small: "trained" by imwa on a|b #1',
    facts={"data": "photos, 30 images", "seed": "0"},
    reading="All of it is ours.",
    metrics=[
        Metric("accuracy", "accuracy", 83.3333, Interval(66.4, 92.7, "Wilson"), "%", "30 test images"),
        Metric("loss", "loss", 0.5, None, "nats", "30 test images"),
    ],
    classes=Classes(("class", "images", "right %"), [["no", 2, 50.0], ["yes: 1", 0, None]]),
    settings={"steps": "3"},
    task="image-classification",
    library="pytorch",
    tags=["imwa", "long-tailed-learning"],
    data_name="photos",
    paper=Paper("A title", "Some Body", 2024, "2401.00001", "body2024"),
    seconds=3.4,
    device="cpu",
)


def test_a_card_says_everything_and_nothing_that_was_not_given():
    with command_under_way("scarce-common-utils", ["train", "/home/me/photos"]):
        tell_data("abcdef")
        text = card_text(CARD, "print(1)", notes="A note.")
    for line in (
        "| data | photos, 30 images |",
        "| time and device | 3 s on cpu |",
        "| command | `scarce-common-utils train photos` |",
        "| data digest | `abcdef` |",
        "| accuracy, 30 test images | 83.33 % | 66.40 to 92.70 % | Wilson |",
        "| loss, 30 test images | 0.500 nats | - | - |",
        "| no | 2 | 50.00 |",
        "| yes: 1 | 0 | - |",
        "| `--steps` | 3 |",
        "A note.",
        "```python\nprint(1)\n```",
        "  eprint = {2401.00001},",
    ):
        assert line in text
    assert "icen" not in text
    assert "/home" not in text
    assert "All at their defaults." in card_text(replace(CARD, settings={}), "")
    assert "## Licence\n\ncc-by-4.0" in card_text(replace(CARD, licence="cc-by-4.0"), "")


def test_many_classes_are_cut():
    text = card_text(replace(CARD, classes=Classes(("class",), [[f"c{number}"] for number in range(203)])), "")
    assert "| c199 |" in text
    assert "| c200 |" not in text
    assert "and 3 more, in `config.json`." in text


@pytest.mark.parametrize(
    ("licence", "field", "name"),
    [(None, None, None), ("CC-BY-4.0", "cc-by-4.0", None), ("Ours: no use", "other", "Ours: no use")],
)
def test_the_hub_s_own_reader_takes_the_head(licence, field, name):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install huggingface_hub")
    card = replace(CARD, licence=licence, data_name="hf:some/set")
    data = hub.ModelCard(card_text(card, "print(1)"), ignore_metadata_errors=False).data
    assert (data.license, data.license_name) == (field, name)
    assert (data.library_name, data.pipeline_tag) == ("pytorch", "image-classification")
    assert (data.tags, data.datasets) == (["imwa", "long-tailed-learning"], ["some/set"])
    assert data.metrics == ["accuracy", "loss"]
    assert data.model_name == CARD.title
    first = data.eval_results[0]
    assert (first.metric_type, first.metric_value, first.dataset_name) == ("accuracy", 83.3333, "some/set")
    assert first.task_type == "image-classification"


def test_the_head_is_plain_lines_of_json_values():
    lines = front_matter(CARD).splitlines()
    assert all(re.match(r'[a-z_-]+: ["\[]', line) for line in lines)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions, ModelOptions):
    data: Annotated[str | None, Operands("DATA", "Data")] = None
    steps: Annotated[int, Option("Steps")] = 10
    every: Annotated[int | None, Option("By default a tenth")] = None
    lists: Annotated[Path | None, Option("A file")] = None


def test_settings_are_what_a_person_changed():
    config = TrainConfig(data="d", steps=20, every=2, lists=Path("/a/b.txt"), out=Path("/x"), seed=4, licence="mit")
    assert settings_of(config, {"steps", "lists"}) == {"steps": "20", "lists": "b.txt"}
    assert settings_of(config, {"every"}) == {"steps": "20", "every": "2"}
    assert settings_of(TrainConfig(data="d"), {"steps"}) == {}
