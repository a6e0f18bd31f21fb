"""`randommask overlap TRAIN --model RUN/model`: one fine-tuning with overlapping k-mers, one with k-mers side by side, over seeds.

    overlapping      k-mers at every base: L - k + 1 tokens for L bases
    side-by-side     k-mers at every k-th base, frame 0: L // k tokens; the same rows, steps and bases (the last L mod k are dropped)
    equal-tokens     side by side again, for so many epochs or steps that the model meets as many tokens as with overlap

With --other-model, a model that was pretrained the other way (`randommask pretrain --no-overlap`), all arms once more on its weights,
named other-...: which way of fine-tuning wins for weights of either way, and which weights win for either way of fine-tuning.

Each run is `randommask finetune` itself, in a run folder of its own; runs of one seed share split and order, so they are paired.

Source    RandomMask (arXiv 2310.07644), abstract: overlapping wins in fine-tuning, for weights pretrained either way; a public review
          objects that overlapping rows are k times longer. The third arm answers it; that reading is ours.
"""

import contextlib
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from randommask.commands.finetune import FinetuneConfig, build_job, finetune
from randommask.commands.launch import begin_together, in_all_processes, open_run
from randommask.commands.words import wrapped
from randommask.training.processes import Processes
from scarce_common_utils.command_line import Option, plain_config
from scarce_common_utils.errors import UserError
from scarce_common_utils.manners import Result
from scarce_common_utils.provenance import stamp
from scarce_common_utils.records import Record, read_record
from scarce_common_utils.run_folder import RunFolder, to_stderr

ARMS: Final = ("overlapping", "side-by-side", "equal-tokens")
_PREFIXES: Final = ("", "other-")  # of the arms of --model and of --other-model


@dataclass(frozen=True, kw_only=True)
class OverlapConfig(FinetuneConfig):
    """Options of `randommask overlap`: those of finetune, and how many pairs."""

    seeds: Annotated[int, Option("Runs of each arm, from --seed on", at_least=1)] = 3
    other_model: Annotated[
        Path | None,
        Option("A second model, such as one pretrained with --no-overlap, fine-tuned both ways on the same rows too"),
    ] = None
    equal_tokens: Annotated[
        bool, Option("Also k-mers side by side until the model has met as many tokens as with overlap")
    ] = True
    regressions: Annotated[bool, Option("Also fit the two regressions, in every run")] = False

    def __post_init__(self) -> None:
        """Refuse options that do not fit together."""
        super().__post_init__()
        if self.push_to_hub is not None:
            raise UserError(
                f"--push-to-hub is {self.push_to_hub}, and this command compares many models. Push one by `hf upload`."
            )
        if self.overlap is not None:
            raise UserError(
                f"--{'' if self.overlap else 'no-'}overlap is for `randommask finetune`; here both ways are run. Leave it out."
            )


def overlap(config: OverlapConfig) -> Result:
    """Fine-tune with overlapping k-mers and with k-mers side by side on the same rows, over seeds, and compare in pairs."""
    return in_all_processes(lambda: _overlap(config))


def _overlap(config: OverlapConfig) -> Result:
    from randommask.training.quiet import quiet_transformers

    run, config, processes = begin_together(
        config, command="overlap", may_change=("device", "workers", "seeds", "equal_tokens")
    )
    weights = (
        [config] if config.other_model is None else [config, dataclasses.replace(config, model=config.other_model)]
    )
    with quiet_transformers():
        tokens = [{arm: _tokens(one, arm) for arm in ARMS[:2]} for one in weights]  # what cannot work is refused here
    with open_run(run, processes, make=lambda: _made(config)) as run:
        to_stderr(f"randommask: run folder {run.path}")
        records = [
            _record(
                run.path / "runs", one, arm, prefix=prefix, seed=seed, ratio=own[ARMS[0]] / own[ARMS[1]], told=processes
            )
            for seed in range(config.seed, config.seed + config.seeds)
            for one, own, prefix in zip(weights, tokens, _PREFIXES, strict=False)
            for arm in (ARMS if config.equal_tokens else ARMS[:2])
        ]
        return _compared(run, config, records, tokens=tokens) if processes.main else None


def _made(config: OverlapConfig) -> RunFolder:
    return RunFolder.create(
        config.out,
        default_name=f"randommask-overlap-{'scratch' if config.model is None else 'pretrained'}",
        package="randommask",
        command="overlap",
        config=plain_config(config),
        given=config.written,
    )


def _compared(
    run: RunFolder, config: OverlapConfig, records: list[Record], *, tokens: list[dict[str, int]]
) -> dict[str, Any]:
    """Differences, printed and drawn."""
    from randommask.analysis.overlap_report import comparison, comparison_text, draw_comparison

    found = comparison(records, arm=ARMS[0])
    content: dict[str, Any] = {"tokens_of_train_rows": tokens[0], **found}
    others = [record for record in records if record.arm.startswith(_PREFIXES[1])]
    if others:
        content["other_model"] = {
            "tokens_of_train_rows": tokens[1],
            **comparison(others, arm=_PREFIXES[1] + ARMS[0]),
        }
    run.write_json("comparison.json", content | stamp())
    model, data = _words(config)
    path = draw_comparison(run.figures / "overlap.png", found, title=f"randommask overlap, {data},\n{model}")
    counts = f"tokens of the training rows: {tokens[0][ARMS[0]]:,} overlapping, {tokens[0][ARMS[1]]:,} side by side"
    print(f"\n{wrapped(f'{data}; {model}')}\n{counts}\n")
    print(comparison_text(found))
    if others:
        print(f"\n{wrapped(f'among the runs of the other model, {_model_words(config, config.other_model)}:')}\n")
        print(comparison_text(content["other_model"]))
    print(
        wrapped("Both ways share epochs and learning rate: one that is trained too little loses for that reason alone.")
    )
    print(f"Figure: {path}\nNumbers: {run.path / 'comparison.json'}\nRun folder: {run.path}")
    return {"run": run.path, "comparison": content | stamp(), "figures": [path]}


def _tokens(config: OverlapConfig, arm: str) -> int:
    """Tokens of the training rows, specials included."""
    pieces = build_job(_arm_config(config, arm, seed=config.seed, ratio=1.0)).sides["train"].pieces
    return sum(len(piece) for row in pieces for piece in row)


def _arm_config(config: OverlapConfig, arm: str, *, seed: int, ratio: float, **folders: Any) -> FinetuneConfig:
    """Options of one run of finetune."""
    names = [field.name for field in dataclasses.fields(FinetuneConfig)]
    options = {name: getattr(config, name) for name in names} | {"out": None, "resume": None, **folders}
    if arm == ARMS[2]:
        options["epochs"] = max(1, round(config.epochs * ratio))
        options["steps"] = None if config.steps is None else max(1, round(config.steps * ratio))
    return FinetuneConfig(**options | {"seed": seed, "overlap": arm == ARMS[0], "given": frozenset()})


def _record(
    folder: Path, config: OverlapConfig, arm: str, *, prefix: str, seed: int, ratio: float, told: Processes
) -> Record:
    """Record of one run: read where it is done, else made, going on from its checkpoint where it was stopped."""
    out = folder / (prefix + arm) / f"seed-{seed:03d}"
    result = out / "result.json"
    done, begun = told.by_main(lambda: (result.is_file(), (out / "config.json").is_file()))
    if not done:
        folders = {"resume": out} if begun else {"out": out}
        with contextlib.redirect_stdout(io.StringIO()):  # its tables are in its own folder; here one line a run
            finetune(_arm_config(config, arm, seed=seed, ratio=ratio, **folders))
    record = told.by_main(lambda: read_record(result))
    record = dataclasses.replace(record, experiment="randommask-overlap", arm=prefix + arm)
    name = next(name for name in ("mcc_last", "pearson_last") if name in record.numbers)
    to_stderr(f"randommask: {record.arm}, seed {seed}: {name} {record.numbers[name]:.3f}")
    return record


def _words(config: OverlapConfig) -> tuple[str, str]:
    """Model and data in words, without a folder of this machine."""
    data = "splice junctions" if config.train is None else Path(config.train).name
    return _model_words(config, config.model), data


def _model_words(config: OverlapConfig, model: Path | None) -> str:
    if model is None:
        return f"{config.size} from scratch, {config.start} start"
    from randommask.tokenizer import KmerTokenizer

    folder = model.resolve()
    way = "overlapping k-mers" if KmerTokenizer.from_pretrained(folder).overlap else "k-mers side by side"
    return f"{folder.parent.name if folder.name == 'model' else folder.name}, pretrained with {way}"
