"""Faces of the user's own: folders of pictures, or a table."""
