"""What came out: predictions, honest numbers, and the folder of a run. No torch here."""
