"""Arms and scales of the randommask reproduction."""
