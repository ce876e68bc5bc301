"""What is transferred: networks that somebody trained, each with the preprocessing its weights belong to."""
