"""What words say about emotions: readers of published word vectors, and a vector for each class by its name."""
