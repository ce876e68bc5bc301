"""Which labels are doubtful, and which images to label next."""
