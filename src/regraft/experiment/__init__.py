"""From a configuration to runs, plans, comparisons and rankings."""
