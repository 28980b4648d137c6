"""SFEW 2.0 (Dhall et al., ICCV Workshops 2011; EmotiW 2015)."""
