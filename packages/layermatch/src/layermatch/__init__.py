"""layermatch."""
