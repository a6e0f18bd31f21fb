"""What a finished run of `imwa train` leaves: figures, the record, the model with its card, a short table."""

from pathlib import Path

from imwa.commands.card import model_card
from imwa.commands.corrections import corrections, evaluations, table_of
from imwa.commands.diagnosis import noted
from imwa.commands.job import Job, plan_of
from imwa.training.corrections import record_numbers, record_units
from imwa.training.report import averages, draw_figures, final_numbers, summary, units
from scarce_common_utils.model_folder import write_model
from scarce_common_utils.resumption import closing_lines, record_of
from scarce_common_utils.run_folder import RunFolder


def finish(run: RunFolder, job: Job, *, seconds: float) -> None:
    """Write figures, the record and the model, and print the table."""
    lines, final = run.metrics(), job.evaluation(job.state.model)
    numbers = final_numbers(lines, final, counts=job.counts, replicas=job.replicas)
    title = f"{job.config.method}, {job.data_name}, seed {job.config.seed}"
    names = job.training.class_names
    figures = draw_figures(
        run.figures, lines, final=final, title=title, class_names=names, counts=job.counts, replicas=job.replicas
    )
    by_class = dict(zip(names, final.by_class, strict=True))
    run.write_json(
        "by_class.json",
        {name: {"training": n, "accuracy": by_class[name]} for name, n in zip(names, job.counts, strict=True)},
    )
    corrected = corrections(job)
    record = record_of(
        run,
        experiment=f"imwa-{job.data_name}",
        arm=job.config.method,
        seed=job.config.seed,
        numbers=numbers | record_numbers(evaluations(corrected), job.counts),
        units=units() | record_units(evaluations(corrected)),
        seconds=seconds,
        device=job.device,
    )
    run.write_result(noted(record, job))
    model, written = corrected.get("retrained", (job.state.model, final))
    card = model_card(job, written, written_by_person=run.given, seconds=seconds)
    write_model(run, model.state_dict(), card)
    taken = sum("gain" in line for line in averages(lines)) if job.replicas > 1 else 0
    print_summary(run, job, numbers, figures, taken=taken, rows=table_of(job, final, corrected) if corrected else "")


def print_summary(
    run: RunFolder, job: Job, numbers: dict[str, float | None], figures: list[Path], *, taken: int, rows: str = ""
) -> None:
    """The short table at the end, what it says, and where everything lies."""
    steps = job.schedule.steps
    print(summary(numbers, method=job.config.method, cost=job.cost, steps=steps, averaged=taken, counts=job.counts))
    if rows:
        print(f"\n{rows}\n")
    most, least = max(job.counts), min(job.counts)
    a_class = f"{most} to {least}" if most > least else str(most)
    print(f"{len(job.training)} training images ({a_class} a class), {len(job.test)} test images.")
    if plan_of(job.config)[0] > 1:
        print("Compare with --method single at as many steps as the cost:\nthat is the same budget in one run.")
    print(closing_lines(run, seed=job.config.seed, figures=figures, model=True))
