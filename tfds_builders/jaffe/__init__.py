"""JAFFE (Lyons, Akamatsu, Kamachi and Gyoba, FG 1998)."""
