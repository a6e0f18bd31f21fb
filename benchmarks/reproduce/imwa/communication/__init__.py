"""Equal wall-clock time on M workers over a slow link: batch M x B with gradients reduced every step, and IMWA with E reductions."""
