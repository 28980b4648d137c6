"""Word vectors of emotions: readers of published files, and one vector for each class by its name."""
