"""What is wrong with data sets: checks of every triplet and between them, a table, and histograms."""
