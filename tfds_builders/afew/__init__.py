"""AFEW 8.0 (Dhall et al., IEEE MultiMedia 2012; EmotiW 2018)."""
