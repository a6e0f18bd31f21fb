"""Speed and memory as ratios against a named peer, both sides in one run."""
