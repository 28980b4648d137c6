"""Synthetic faces: drawn expressions with the ground truth that no real data set has."""
