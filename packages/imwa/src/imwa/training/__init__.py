"""Training an image classifier with IMWA: state, batches, step, loop, evaluation, report."""
