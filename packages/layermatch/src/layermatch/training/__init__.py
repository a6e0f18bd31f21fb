"""What surrounds the criterion in a training run: step, loop, averages, schedule, evaluation, figures."""
