"""AffectNet (Mollahosseini, Hasani and Mahoor, 2017)."""
