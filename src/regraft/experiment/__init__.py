"""From a split and a learner to a run, and the demonstration of the whole way."""
