"""Public models on FER-2013's private_test beside the one that comes with fer_jax: accuracy, size and time of a face.

    python -m benchmarks.peers --data_dir=FOLDER --out results/peers.json [--fer=PYTHON] [--npm=FOLDER]

PYTHON is the interpreter of another environment, in which PyPI's `fer` is installed (it needs TensorFlow). The FOLDER
of --npm is one in which `npm install @vladmandic/human @vladmandic/face-api @tensorflow/tfjs
@tensorflow/tfjs-backend-wasm` ran. Every model classifies the stored pictures as whole faces, nothing is searched for,
and scales them by the code or the rule of its own package. Which pictures the others were trained on is not known:
FER-2013's splits are public, and some of the tested pictures may be among them.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import tempfile
import time
from typing import Any

import numpy as np

import fer_jax
from benchmarks import machine
from benchmarks.turns import markdown
from experiments import fer2013_fast
from fer_jax.data.sources.source import load as read_source
from fer_jax.evaluation.metrics import classification_metrics
from fer_jax.labels import name_of
from fer_jax.storage import write_whole
from fer_jax.training.state import num_parameters

BATCH = 128
SPLIT = "private_test"
# Each program reads uint8 pictures [N, 48, 48] from a file and prints classes, parameters, milliseconds of a face, and
# probabilities [N, 7] as one line of JSON, the last of its output.
PYPI = """
import json, pathlib, sys, time
import cv2, fer.fer, h5py, numpy as np
faces, parameters = np.fromfile(sys.argv[1], np.uint8).reshape(-1, 48, 48), []
with h5py.File(pathlib.Path(fer.__file__).parent / "data" / "emotion_model.hdf5") as file:
    file["model_weights"].visititems(lambda _, node: parameters.append(getattr(node, "size", 0)))
fer = fer.fer.FER()
began, answers = time.perf_counter(), []
for first in range(0, len(faces), int(sys.argv[2])):
    grown = [cv2.resize(face, (64, 64)) for face in faces[first : first + int(sys.argv[2])]]
    inputs = 2 * (np.asarray(grown, np.float32) / 255 - 0.5)
    answers.append(np.asarray(fer._classify_emotions(inputs)))
took = 1000 * (time.perf_counter() - began) / len(faces)
classes = [fer._get_labels()[number] for number in range(7)]
found = [classes, int(sum(parameters)), took, np.concatenate(answers).tolist()]
print(json.dumps(found))
"""
START = """
import { createRequire } from 'module'
import fs from 'fs'
const require = createRequire(process.cwd() + '/')
const [path, batch] = process.argv.slice(1), pixels = 48 * 48
const faces = new Uint8Array(fs.readFileSync(path)), count = faces.length / pixels
const wasm = process.cwd() + '/node_modules/@tensorflow/tfjs-backend-wasm/dist/'
async function run(tf, classes, parameters, classify) {
  const answers = [], began = performance.now()
  for (let first = 0; first < count; first += Number(batch)) {
    const part = faces.subarray(first * pixels, Math.min(count, first + Number(batch)) * pixels)
    const gray = tf.tensor(part, [part.length / pixels, 48, 48, 1], 'float32')
    const answer = classify(tf.tile(gray, [1, 1, 1, 3]))
    answers.push(...await answer.array())
    tf.dispose([gray, answer])
  }
  const took = (performance.now() - began) / count
  fs.writeSync(1, '\\n' + JSON.stringify([classes, parameters, took, answers]) + '\\n')
}
const size = (weights) => weights.reduce((sum, weight) => sum + weight.shape.reduce((a, b) => a * b, 1), 0)
"""
# By src/gear/emotion.ts of the package: bilinear to the input of the network, gray, from -1 to 1.
HUMAN = """
const tf = require('@tensorflow/tfjs')
require('@tensorflow/tfjs-backend-wasm').setWasmPaths(wasm)
await tf.setBackend('wasm')
const place = 'node_modules/@vladmandic/human/models/emotion'
const { modelTopology, weightsManifest } = JSON.parse(fs.readFileSync(place + '.json'))
const weightSpecs = weightsManifest.flatMap((part) => part.weights)
const bytes = fs.readFileSync(place + '.bin')
const weightData = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)
const model = await tf.loadGraphModel(tf.io.fromMemory({ modelTopology, weightSpecs, weightData }))
const side = model.inputs[0].shape[2]
const classes = ['angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral']
await run(tf, classes, size(weightSpecs), (images) => tf.tidy(() => {
  const resized = tf.image.resizeBilinear(images.div(255), [side, side])
  const gray = resized.mul([0.2989, 0.5870, 0.1140]).sum(3, true)
  return model.execute(gray.sub(0.5).mul(2))
}))
"""
FACE_API = """
const tf = require('@tensorflow/tfjs')
require('@tensorflow/tfjs-backend-wasm').setWasmPaths(wasm)
const api = require('@vladmandic/face-api/dist/face-api.node-wasm.js')
await api.tf.setBackend('wasm')
await api.tf.ready()
const folder = 'node_modules/@vladmandic/face-api/model'
await api.nets.faceExpressionNet.loadFromDisk(folder)
const manifest = JSON.parse(fs.readFileSync(folder + '/face_expression_model-weights_manifest.json'))
const classes = ['neutral', 'happy', 'sad', 'angry', 'fear', 'disgust', 'surprise']
await run(api.tf, classes, size(manifest.flatMap((part) => part.weights)), (images) =>
  api.nets.faceExpressionNet.forwardInput(new api.NetInput(images.unstack(), true)))
"""


def ours(faces: np.ndarray) -> list[Any]:
    """Returns what the other programs print, of the model in the package on faces [N, 48, 48]."""
    model = fer_jax.load()
    model.predict(faces[:BATCH])  # compiles
    began, rows = time.perf_counter(), []
    for first in range(0, len(faces), BATCH):
        rows += model.predict(faces[first : first + BATCH])
    took = 1000 * (time.perf_counter() - began) / len(faces)
    return [model.classes, num_parameters(model.variables["params"]), took, [row.probabilities for row in rows]]


def theirs(command: list[str], faces: np.ndarray, folder: str | None = None) -> list[Any]:
    """Returns what a program prints of faces [N, 48, 48]; it runs in `folder`."""
    with tempfile.NamedTemporaryFile() as file:
        faces.tofile(file.name)
        done = subprocess.run([*command, file.name, str(BATCH)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def score(found: list[Any], truth: list[str]) -> dict[str, Any]:
    """Returns the scores of what a program printed; `truth` names the class of each face."""
    classes, parameters, milliseconds, probabilities = found
    names = [name_of(name) for name in classes]
    labels = np.array([names.index(name_of(name)) for name in truth])
    logits = np.log(np.maximum(np.array(probabilities, np.float64), 1e-30))
    scores = classification_metrics(logits, labels, names, bootstrap=0)
    kept = ("num_examples", "accuracy", "mean_recall", "nll", "ece", "classes", "recall")
    return {name: scores[name] for name in kept} | {"parameters": parameters, "milliseconds": milliseconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default="results/peers.json")
    parser.add_argument("--data_dir", default="", help="folder of the prepared data")
    parser.add_argument("--fer", default="", help="Python with `fer`")
    parser.add_argument("--npm", default="", help="folder with the npm packages")
    given = parser.parse_args()
    config = fer2013_fast.get_config()
    config.data.data_dir = given.data_dir
    source = read_source(config.data, SPLIT, training=False)
    faces, truth = source.arrays["image"][..., 0], [source.classes[label] for label in source.arrays["label"]]
    models = {"fer_jax": score(ours(faces), truth)}
    if given.fer:
        models["PyPI `fer`"] = score(theirs([given.fer, "-c", PYPI], faces), truth)
    for name, program in {"`human`": HUMAN, "`face-api`": FACE_API}.items() if given.npm else ():
        node = ["node", "--input-type=module", "-e", START + program, "--"]
        models[f"npm {name}"] = score(theirs(node, faces, given.npm), truth)
    record = machine.describe() | {"split": SPLIT, "models": models}
    write_whole(given.out, json.dumps(record, indent=1) + "\n")
    head = ["FER-2013 private_test", "accuracy, %", "mean recall, %", "NLL", "ECE, %", "parameters", "ms a face"]
    table = markdown(head, [_row(name, scores) for name, scores in models.items()])
    write_whole(given.out.with_suffix(".md"), table)
    print(table)


def _row(name: str, scores: dict[str, Any]) -> list[str]:
    percents = [f"{100 * scores[key]:.1f}" for key in ("accuracy", "mean_recall")]
    others = [f"{scores['nll']:.3f}", f"{100 * scores['ece']:.1f}", f"{scores['parameters']:,}"]
    return [name, *percents, *others, f"{scores['milliseconds']:.2f}"]


if __name__ == "__main__":
    main()
