"""CK+ (Lucey et al., CVPR Workshops 2010)."""
