"""What is transferred: trained networks, each with the preprocessing its weights belong to."""
