"""What came out: predictions, honest numbers, and the folder of a run. Nothing here imports torch."""
