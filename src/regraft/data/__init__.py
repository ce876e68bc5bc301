"""What is learned from: labelled images, their split, what is wrong with them. No torch here."""
