"""Arms and scales of the imwa reproduction."""
