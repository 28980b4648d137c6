"""Builds the page of this folder, which finds and classifies faces in a browser.

    pip install 'fer_jax[onnx]'
    python -m docs.demo.build --model=PATH     # writes docs/demo/site/; npm fetches onnxruntime-web
    python -m http.server --directory docs/demo/site

The page is static: any server of files will do, and no picture leaves the browser.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).parent
RUNTIME = "onnxruntime-web@1.30.0"  # MIT
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
SIDES = ("height", "width")


def build(model: str | None, out: pathlib.Path, yunet: str | None = None) -> None:
    """Writes the page, with the networks and what runs them, to a folder.

    Args:
        model: a run or a model file; None for the one that fer_jax has.
        out: the folder.
        yunet: YuNet's ONNX file, instead of fetching it.

    Raises:
        UserError: if the model cannot be exported, or if npm or what it fetches is missing.
    """
    import onnx

    from fer_jax import cli
    from fer_jax.errors import UserError
    from fer_jax.faces.fetch import YUNET, fetch

    exported = ["export", "--format=onnx", f"--out={out / 'model.onnx'}", *([f"--model={model}"] if model else [])]
    if cli.main(exported):
        raise UserError("the page was not built")
    (card,) = (entry.value for entry in onnx.load(out / "model.onnx").metadata_props if entry.key == "fer_jax")
    if json.loads(card)["crop"]["by_box"]:
        raise UserError(f"{model}: the page aligns faces, and this model has learned from crops of boxes")
    (out / "card.json").write_text(card, encoding="utf-8")
    detector = onnx.load(yunet or fetch(YUNET))
    for value in detector.graph.input:  # YuNet is made of convolutions: it takes pictures of any size
        for name, side in zip(SIDES, value.type.tensor_type.shape.dim[2:], strict=True):
            side.dim_param = name
    for value in detector.graph.output:
        value.type.tensor_type.shape.dim[1].dim_param = f"{value.name}_cells"
    del detector.graph.value_info[:]  # shapes for that size
    onnx.save(detector, out / "yunet.onnx")
    if not all((out / "ort" / name).exists() for name in RUNTIME_FILES):
        _fetch_runtime(out / "ort")
    for name in ("index.html", "demo.js"):
        shutil.copy(HERE / name, out / name)


def _fetch_runtime(folder: pathlib.Path) -> None:
    """Takes the files that the page needs from onnxruntime-web's package."""
    from fer_jax.errors import UserError

    with tempfile.TemporaryDirectory() as place:
        try:
            subprocess.run(["npm", "pack", "--silent", RUNTIME], cwd=place, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"npm could not fetch {RUNTIME} ({error}): install Node.js, or check the network"
            ) from error
        (package,) = pathlib.Path(place).glob("*.tgz")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(package.read_bytes())) as archive:
            for name in RUNTIME_FILES:
                content = archive.extractfile(f"package/dist/{name}")
                (folder / name).write_bytes(content.read() if content else b"")


def main() -> int:
    from fer_jax.errors import UserError

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a run or a model file")
    parser.add_argument("--yunet", help="YuNet's ONNX file, instead of fetching it")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "site", help="the folder of the page")
    options = parser.parse_args()
    try:
        build(options.model, options.out, options.yunet)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    print(f"{options.out}: python -m http.server --directory {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
