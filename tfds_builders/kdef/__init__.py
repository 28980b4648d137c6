"""KDEF (Lundqvist, Flykt and Ohman, Karolinska Institutet 1998)."""
