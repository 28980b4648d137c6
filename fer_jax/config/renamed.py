"""Fields that earlier versions had, and what says the same now."""

_ENTRIES = {
    "flip": "'flip'",
    "flip_alternate": "'flip:alternate'",
    "shift": "'shift:4'",
    "crop": "'crop:59'",
    "crop_scale": "'crop_scale:0.5-1'",
    "crop_aspect": "'crop_scale:0.5-1,aspect=0.75-1.33'",
    "rotation": "'rotate:10'",
    "zoom": "'zoom:0.9-1.1'",
    "shear": "'shear:5'",
    "translate": "'translate:0.05'",
    "affine_probability": "'rotate:10,p=0.75'",
    "warp": "'warp:0.2'",
    "warp_probability": "'warp:0.2,p=0.75'",
    "brightness": "'brightness:0.2'",
    "contrast": "'contrast:0.2'",
    "light_probability": "'all_of:0.75(brightness:0.2|contrast:0.2)'",
    "erase": "'erase:0.5'",
    "erase_area": "'erase:0.5,area=0.02-0.25'",
    "erase_aspect": "'erase:0.5,aspect=0.3-3.33'",
    "erase_fill": "'erase:0.5,fill=random'",
}
RENAMED = {
    f"augmentation.{field}": f"it is now an entry of config.augmentation.train, such as {entry} (CHANGELOG.md)"
    for field, entry in _ENTRIES.items()
} | {
    "augmentation.mean": "it is now config.preprocessing.mean",
    "augmentation.std": "it is now config.preprocessing.std",
    "augmentation.standardise": "it is now config.preprocessing.standardize",
}
