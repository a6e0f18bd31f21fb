"""randommask."""
