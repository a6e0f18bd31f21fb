"""Arms and scales of randommask's reproduction."""
