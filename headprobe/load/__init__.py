"""From a name and some files to a model in eval mode and batches with their masks."""
