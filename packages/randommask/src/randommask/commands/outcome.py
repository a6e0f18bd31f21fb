"""What a finished `randommask pretrain` leaves beside its weights: record, figures, model card, a short table."""

from typing import TYPE_CHECKING, Any

from randommask.commands.words import wrapped
from randommask.genome.held_out import describe_held_out
from scarce_common_utils.checkpoints import write_atomically
from scarce_common_utils.command_line import plain_config
from scarce_common_utils.figures import table
from scarce_common_utils.model_card import settings_of
from scarce_common_utils.resumption import closing_lines, record_of
from scarce_common_utils.run_folder import RunFolder

if TYPE_CHECKING:
    from randommask.commands.pretrain import Job


def report(run: RunFolder, job: "Job", *, rows: list[Any], expected: list[Any], seconds: float) -> None:
    """Record, figures, model card and the printed table."""
    from randommask.training.report import draw_pretraining, model_card

    config = job.config
    numbers: dict[str, float | None] = {"steps": config.steps}
    units = {"steps": "steps"}
    for row in rows:
        for name in ("loss", "floor", "ceiling", "masked_share"):
            numbers[f"{name}_width_{row.width}"] = getattr(row, name)
            units[f"{name}_width_{row.width}"] = "" if name == "masked_share" else "nats"
    run.write_result(
        record_of(
            run,
            experiment="randommask-pretrain",
            arm=config.masking,
            seed=config.seed,
            numbers=numbers,
            units=units,
            seconds=seconds,
            device=job.device,
        )
    )
    figures = draw_pretraining(
        run,
        rows=rows,
        expected=expected,
        title=f"randommask pretrain, {config.method}, {config.size}, seed {config.seed}",
    )
    card = model_card(
        config=plain_config(config),
        settings=settings_of(config, run.given, operand="genome"),
        content_hash=job.genome.content_hash,
        held_out=describe_held_out(job.genome, job.parts),
        rows=rows,
        seconds=seconds,
        device=job.device.type,
    )
    write_atomically(run.model / "README.md", card.encode())
    print(
        f"\n{config.method}, {config.size}, {config.start} start, k = {config.k}, {config.steps} steps, seed {config.seed}"
        f"{'' if config.overlaps else '; k-mers side by side'}"
    )
    print(wrapped(f"held out: {describe_held_out(job.genome, job.parts)}"))
    read = "" if config.dataset else f" of {job.held_out.bases + job.windows.bases:,}"
    print(f"{job.held_out.bases:,}{read} known bases are held out; nats a masked token\n")
    print(
        table(
            ["mask width", "loss", "floor", "ceiling", "masked %"],
            [[row.width, row.loss, row.floor, row.ceiling, 100 * row.masked_share] for row in rows],
        )
    )
    print("floor: of a perfect model on random bases; ceiling: of k-mer frequencies alone.")
    for row in rows:
        if row.ceiling is not None and row.loss > row.ceiling:
            print(
                wrapped(
                    f"the loss at width {row.width} is above that of k-mer frequencies alone: the model has not learned yet; "
                    "train longer"
                )
            )
    print(closing_lines(run, seed=config.seed, figures=figures, model=True))
