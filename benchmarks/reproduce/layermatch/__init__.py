"""Arms and scales of the layermatch reproduction."""
