"""Which images a step sees, and their pixels."""
