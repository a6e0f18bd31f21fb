"""The card of a trained model, README.md in its folder, filled by itself: what it is, of what data, how good, and how to load it.

Its head is YAML with the fields that the Hugging Face Hub reads; a value there is written as JSON, which YAML contains. What is
not known is left out: a licence above all. No path, host or user is in it.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from scarce_common_utils.intervals import Interval
from scarce_common_utils.provenance import last_name, stamp_lines

# The Hub's licence identifiers that people choose for weights; any other is written as `other` with its name.
LICENCES: Final = frozenset((
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "gpl", "gpl-2.0",
    "gpl-3.0", "agpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "afl-3.0", "artistic-2.0", "bsd", "bsd-2-clause",
    "bsd-3-clause", "bsl-1.0", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-permissive-2.0",
    "ecl-2.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "isc", "mpl-2.0", "ms-pl", "ncsa", "odbl", "pddl",
    "unlicense", "wtfpl", "zlib",
))  # fmt: skip
# Options that say where a run computed or wrote, and what its card says in lines of their own.
_NO_SETTINGS: Final = frozenset((
    "out", "resume", "config", "given", "inherited", "seed", "device", "workers", "in_memory", "download",
    "data_folder", "tracker", "checkpoint_every", "keep_checkpoints", "cache", "licence", "push_to_hub",
))  # fmt: skip
_ROWS: Final = 200


class Metric(NamedTuple):
    """A number of the test set: `name` for people, `kind` for the Hub, `value` with its `interval`, `unit`, and what it is `on`."""

    name: str
    kind: str
    value: float
    interval: Interval | None
    unit: str
    on: str


class Paper(NamedTuple):
    """What a method is from."""

    title: str
    authors: str
    year: int
    arxiv: str
    key: str

    @property
    def bibtex(self) -> str:
        """Its BibTeX entry."""
        return (
            f"@misc{{{self.key},\n  title = {{{self.title}}},\n  author = {{{self.authors}}},\n  year = {{{self.year}}},\n"
            f"  eprint = {{{self.arxiv}}},\n  archivePrefix = {{arXiv}}\n}}"
        )


class Classes(NamedTuple):
    """The table of the classes: `columns` and `rows`, a class each."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is told of a model.

    Attributes:
        title: one line, such as "small, trained by layermatch on digits".
        facts: lines of the first table, name -> text: data, method, steps, seed.
        reading: which part of the method is published and which is ours, in sentences.
        metrics: the first one is the headline.
        classes: table of the classes; None where there are none.
        settings: options that differ from their defaults, name -> value.
        task: the Hub's, such as `image-classification`.
        library: the Hub's name of what loads it.
        tags: words to find it by.
        data_name: short name of the data; `hf:NAME` is named to the Hub as a data set.
        paper: of the method.
        seconds: that the run took.
        device: on which.
        licence: as the person gave it; None says nothing.
        base_model: the Hub's name of the model that it began as, where it has one.
    """

    title: str
    facts: Mapping[str, str]
    reading: str
    metrics: Sequence[Metric]
    classes: Classes | None
    settings: Mapping[str, Any]
    task: str
    library: str
    tags: Sequence[str]
    data_name: str
    paper: Paper
    seconds: float
    device: str
    licence: str | None = None
    base_model: str | None = None


def settings_of(config: Any, written: Collection[str], *, operand: str = "data") -> dict[str, Any]:
    """Options of a run that differ from their defaults, each path cut to its last name.

    Args:
        config: a command's dataclass.
        written: names of the options that a person wrote; of an option that is worked out when left out only these are told.
        operand: the field that stands without a flag.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), field.default
        if field.name in _NO_SETTINGS or field.name == operand or value == default:
            continue
        if default is None and field.name not in written:
            continue
        found[field.name] = ",".join(last_name(part) for part in str(value).split(","))
    return found


def card_text(card: Card, code: str, *, notes: str = "") -> str:
    """The whole README.md: head, tables, how to load the model, the paper.

    Args:
        card: what is told.
        code: lines of Python that load and use the model, run within its folder.
        notes: Markdown between the tables and the code.
    """
    facts = dict(card.facts)
    facts["time and device"] = f"{card.seconds:,.0f} s on {card.device}"
    facts |= {name.lower(): f"`{text}`" if name != "Versions" else text for name, text in stamp_lines().items()}
    parts = [
        f"---\n{front_matter(card)}---\n\n# {card.title}",
        _table(("", ""), list(facts.items())),
        _table(("test set", "value", "95 % interval", "by"), [_metric_row(metric) for metric in card.metrics]),
        "The interval says how far another test set of this size would move the number. One seed says little of another.",
    ]
    if notes:
        parts.append(notes)
    if card.classes is not None and card.classes.rows:
        parts.append(f"## Classes\n\n{_table(card.classes.columns, card.classes.rows[:_ROWS])}")
        if len(card.classes.rows) > _ROWS:
            parts.append(f"and {len(card.classes.rows) - _ROWS} more, in `config.json`.")
    settings = [(f"`--{name.replace('_', '-')}`", value) for name, value in card.settings.items()]
    parts += [
        f"## Settings\n\n{_table(('not at its default', 'value'), settings) if settings else 'All at their defaults.'}",
        f"## How to load it\n\n```python\n{code.strip()}\n```",
        f"## Method\n\n{card.reading}\n\n[{card.paper.title}](https://arxiv.org/abs/{card.paper.arxiv})",
        f"```bibtex\n{card.paper.bibtex}\n```",
    ]
    if card.licence is not None:
        parts.append(f"## Licence\n\n{card.licence}")
    return "\n\n".join(parts) + "\n"


def front_matter(card: Card) -> str:
    """Lines of YAML for the Hub, without their fences."""
    fields: dict[str, Any] = {}
    if card.licence is not None:
        known = card.licence.lower()
        fields |= {"license": known} if known in LICENCES else {"license": "other", "license_name": card.licence}
    if card.base_model is not None:
        fields["base_model"] = card.base_model
    fields |= {"library_name": card.library, "pipeline_tag": card.task, "tags": list(dict.fromkeys(card.tags))}
    if card.data_name.startswith("hf:"):
        fields["datasets"] = [card.data_name.removeprefix("hf:")]
    fields["metrics"] = list(dict.fromkeys(metric.kind for metric in card.metrics))
    dataset = {"name": card.data_name.removeprefix("hf:"), "type": card.data_name.removeprefix("hf:")}
    metrics = [{"type": metric.kind, "value": round(metric.value, 4), "name": metric.name} for metric in card.metrics]
    results = [{"task": {"type": card.task}, "dataset": dataset, "metrics": metrics}]
    fields["model-index"] = [{"name": card.title, "results": results}]
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items())


def _metric_row(metric: Metric) -> tuple[str, str, str, str]:
    unit = f" {metric.unit}" if metric.unit else ""
    digits = 2 if metric.unit == "%" else 3
    value = f"{metric.value:.{digits}f}{unit}"
    if metric.interval is None:
        return f"{metric.name}, {metric.on}", value, "-", "-"
    low, high, method = metric.interval
    return f"{metric.name}, {metric.on}", value, f"{low:.{digits}f} to {high:.{digits}f}{unit}", method


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
