"""Rules over reports: what is wrong with a model's attention, and what became of it since its baseline."""
