"""MMI (Pantic et al., ICME 2005; Valstar and Pantic, LREC Workshops 2010)."""
