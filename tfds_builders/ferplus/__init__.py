"""FER+ (Barsoum et al., 2016): ten votes for every picture of FER-2013."""
