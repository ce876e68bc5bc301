"""What is to be learned: labelled pictures, their split, what is wrong with them. No torch here."""
