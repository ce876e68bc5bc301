"""What is to be learned: pictures with labels, their split, and what is wrong with them. Nothing here imports torch."""
