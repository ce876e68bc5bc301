"""What learns: classifiers on top of a backbone, and how they are saved as data."""
