"""Aff-Wild2 (Kollias and Zafeiriou, 2019) with the expressions of the ABAW challenges."""
