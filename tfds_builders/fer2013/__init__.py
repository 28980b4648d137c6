"""FER-2013 (Goodfellow et al., 2013)."""
