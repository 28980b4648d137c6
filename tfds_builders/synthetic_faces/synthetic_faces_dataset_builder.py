"""Synthetic faces as a TensorFlow Datasets builder.

    from tfds_builders import registry

    builder = registry.make_builder("synthetic_faces/basic")  # or "compound", "clips", ...; smaller: train=70, test=14
    builder.download_and_prepare()
    source = builder.as_data_source(split="train")

Needs neither a download nor TensorFlow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from fer_jax.errors import UserError, nearest
from fer_jax.labels import AFFECT, FERPLUS_VOTES
from tfds_builders.options import replaced
from tfds_builders.synthetic_faces.examples import generate
from tfds_builders.synthetic_faces.expressions import ACTION_UNITS, AU_IDS, COMPOUND_NAMES
from tfds_builders.synthetic_faces.plan import Plan

DEFAULTS: dict[str, Plan] = {
    "basic": Plan(),
    "compound": Plan(kind="compound", train=4400, test=1100),
    "clips": Plan(kind="clips", train=700, test=210),
    "identities": Plan(kind="identities", train=20_000, test=2_000, per_subject=20),
    "occluded_train": Plan(bank="train"),
    "occluded_test": Plan(bank="test"),
}
LARGEST = 1024  # pixels


class FacesConfig(tfds.core.BuilderConfig):
    """A named plan."""

    def __init__(self, *, plan: Plan, **kwargs: Any):
        super().__init__(**kwargs)
        self.plan = plan

    def splits(self) -> tuple[str, ...]:
        """Objects of the test bank are never seen in training: that configuration has no training split."""
        return ("test",) if self.plan.bank == "test" else ("train", "test")


def faces_config(name: str = "basic", **changes: Any) -> FacesConfig:
    """Returns the named configuration with some fields of its plan replaced (size, train, test, seed ...)."""
    if name not in DEFAULTS:
        raise UserError(f"synthetic_faces has no variant '{name}': {nearest(name, DEFAULTS)}")
    base = DEFAULTS[name]
    plan = replaced("synthetic_faces", base, changes, {})
    if plan.size > LARGEST:
        raise UserError(f"synthetic_faces: option size={plan.size} must be {LARGEST} pixels at most")
    parts = [f"{f}{getattr(plan, f)}" for f in changes if getattr(plan, f) != getattr(base, f)]
    version = "2.0.0" if plan.kind == "compound" else "1.0.0"  # its label was the dominant emotion
    return FacesConfig(name="-".join([name, *parts]), version=version, plan=plan)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Drawn faces with ground truth."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [faces_config(name) for name in DEFAULTS]
    # Nothing is downloaded; TFDS's own property would need importlib_resources, which it does not install.
    url_infos = None  # pyright: ignore

    def __init__(self, **kwargs: Any):
        super().__init__(**{"file_format": "array_record", **kwargs})

    @classmethod
    def make(cls, variant: str, data_dir: str | None, options: Mapping[str, Any]) -> Builder:
        """Returns the builder of a configuration with some fields of its plan replaced (size, seed ...)."""
        config = faces_config(variant or "basic", **options)
        # TFDS takes a configuration of its list by name only.
        return cls(config=config.name if config.name in DEFAULTS else config, data_dir=data_dir)

    @property
    def plan(self) -> Plan:
        """What this configuration draws."""
        config = self.builder_config
        assert isinstance(config, FacesConfig)
        return config.plan

    def _info(self) -> tfds.core.DatasetInfo:
        plan, f = self.plan, tfds.features
        size, units, time = plan.size, len(AU_IDS), (plan.frames,) if plan.kind == "clips" else ()
        picture = f.Image(shape=(size, size, 1 if plan.gray else 3), encoding_format="png")
        mask = f.Image(shape=(size, size, 1), encoding_format="png")
        features: dict[str, Any] = {
            "label": f.ClassLabel(names=list(plan.classes())),
            "code": f.Scalar(np.int64),
            "compound_label": f.ClassLabel(names=list(COMPOUND_NAMES)),
            "votes": f.Tensor(shape=(len(FERPLUS_VOTES),), dtype=np.int64),
            # As a class a person is in both splits: parts that are held out by subject would hold out classes.
            **({} if plan.kind == "identities" else {"subject": f.Scalar(np.int64)}),
            "intensity": f.Scalar(np.float32),
            "landmarks": f.Tensor(shape=(*time, 68, 2), dtype=np.float32),
            "action_units": f.Tensor(shape=(*time, units), dtype=np.float32),
            "pose": f.Tensor(shape=(*time, 3), dtype=np.float32),
            "occluded_fraction": f.Tensor(shape=time, dtype=np.float32),
        }
        if plan.kind == "clips":
            features |= {
                "frames": f.Sequence(picture, length=plan.frames),
                "frame_mask": f.Tensor(shape=time, dtype=np.bool_),
                "frame_intensity": f.Tensor(shape=time, dtype=np.float32),
                "occlusion_mask": f.Sequence(mask, length=plan.frames),
            }
        else:
            features |= {"image": picture, "occlusion_mask": mask}
        if plan.affect:
            features |= {name: f.Scalar(np.float32) for name in AFFECT}
        return self.dataset_info_from_configs(
            features=f.FeaturesDict(features),
            description=__doc__,
            supervised_keys=None if plan.kind == "clips" else ("image", "label"),
            disable_shuffling=True,  # record i of an occluded configuration is record i of `basic`
            metadata=tfds.core.MetadataDict(
                action_units={str(k): v for k, v in ACTION_UNITS.items()},
                action_unit_ids=list(AU_IDS),
                occluder_bank=plan.bank,
                seed=plan.seed,
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager  # nothing to download
        config = self.builder_config
        assert isinstance(config, FacesConfig)
        return {split: self._generate_examples(split) for split in config.splits()}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        drawn = tqdm(
            generate(self.plan, split),
            f"drawing {split}",
            self.plan.count(split),
            unit=" examples",
            disable=None,
        )
        for key, example in enumerate(drawn):
            for name in ("image", "frames", "occlusion_mask"):
                if name in example:
                    example[name] = _files(example[name])
            yield key, example

    # TFDS prints "Downloading" and "Unknown size" here, though nothing is downloaded.
    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...


def _files(encoded: bytes | list[bytes]) -> io.BytesIO | list[io.BytesIO]:
    """Encoded pictures as files: TFDS stores these as they are (an array would make it import TensorFlow)."""
    return io.BytesIO(encoded) if isinstance(encoded, bytes) else [io.BytesIO(one) for one in encoded]
