"""CAER-S (Lee et al., ICCV 2019)."""
