"""Networks that come with the package; any other model goes through `layermatch.split_classifier`."""
