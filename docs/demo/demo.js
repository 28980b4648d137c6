// Finds, crops and classifies the faces of a photo or of the camera, as fer_jax does (fer_jax/faces/detection.py and
// alignment.py). Points are [x, y] in pixels, pixel centers at integers.
import * as ort from "./ort/ort.wasm.min.mjs";

const SHORTEST = 128, LONGEST = 1280; // a picture is scaled to sides between them before detection
const SCORE = 0.7, OVERLAP = 0.3; // the least score of a face, and the most that two faces may overlap
// Right eye, left eye, nose tip, right and left corner of the mouth, as shares (x, y) of the crop's side.
const TEMPLATE = [[0.3427, 0.4607], [0.6573, 0.4607], [0.5, 0.6405], [0.3697, 0.824], [0.6303, 0.824]];

const element = (id) => document.getElementById(id);
const rounded = (v) => (v % 1 === 0.5 ? 2 * Math.round(v / 2) : Math.round(v)); // halves to even, as in Python
const percent = (share) => `${Math.round(100 * share)} %`;
let card, detector, classifier, stream; // the stream of the camera, while it is on

// Returns the pixels of an image or of a frame of a video at a size; what is transparent is white.
function pixelsOf(source, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

// Returns [{box: [x, y, width, height], score, points}] by decreasing score.
async function detect(source, width, height) {
  const scale = Math.min(Math.max(1, SHORTEST / Math.min(width, height)), LONGEST / Math.max(width, height));
  const small = pixelsOf(source, rounded(width * scale), rounded(height * scale));
  const [columns, rows] = [small.width, small.height].map((side) => Math.ceil(side / 32) * 32); // zeros right and below
  const bgr = new Float32Array(3 * rows * columns);
  for (let y = 0; y < small.height; y++)
    for (let x = 0; x < small.width; x++)
      for (let c = 0; c < 3; c++)
        bgr[((2 - c) * rows + y) * columns + x] = small.data[4 * (y * small.width + x) + c];
  const outputs = await detector.run({ input: new ort.Tensor("float32", bgr, [1, 3, rows, columns]) });
  const found = [8, 16, 32].flatMap((stride) => decoded(outputs, stride, columns / stride, scale));
  const kept = [];
  for (const face of found.sort((a, b) => b.score - a.score))
    if (kept.every((other) => overlap(face.box, other.box) <= OVERLAP)) kept.push(face);
  return kept;
}

// Returns the faces of one of YuNet's three grids of cells, in pixels of the picture, which was scaled for it.
function decoded(outputs, stride, columns, scale) {
  const [cls, obj, bbox, kps] = ["cls", "obj", "bbox", "kps"].map((name) => outputs[`${name}_${stride}`].data);
  const faces = [];
  for (let i = 0; i < cls.length; i++) {
    const score = Math.sqrt(cls[i] * obj[i]);
    if (score < SCORE) continue;
    const column = i % columns, row = Math.floor(i / columns), [dx, dy, w, h] = bbox.subarray(4 * i);
    const [width, height] = [w, h].map((side) => Math.exp(side) * stride);
    const box = [(column + dx) * stride - width / 2, (row + dy) * stride - height / 2, width, height];
    const point = (n) => [kps[10 * i + 2 * n] + column, kps[10 * i + 2 * n + 1] + row];
    const points = TEMPLATE.map((_, n) => point(n).map((v) => (v * stride + 0.5) / scale - 0.5));
    faces.push({ box: box.map((v) => v / scale), score, points });
  }
  return faces;
}

// Intersection over union.
function overlap([x, y, w, h], [u, v, s, t]) {
  const across = Math.min(x + w, u + s) - Math.max(x, u), down = Math.min(y + h, v + t) - Math.max(y, v);
  const shared = Math.max(across, 0) * Math.max(down, 0);
  return shared / (w * h + s * t - shared);
}

// Returns {a, b, u, v} of (x, y) -> (a x - b y + u, b x + a y + v) that maps points to goals by least squares
// (Umeyama, IEEE T-PAMI 1991).
function similarity(points, goals) {
  const mean = (list, k) => list.reduce((sum, point) => sum + point[k], 0) / list.length;
  const [px, py, gx, gy] = [mean(points, 0), mean(points, 1), mean(goals, 0), mean(goals, 1)];
  let spread = 0, a = 0, b = 0;
  points.forEach((point, n) => {
    const x = point[0] - px, y = point[1] - py, u = goals[n][0] - gx, v = goals[n][1] - gy;
    spread += x * x + y * y;
    a += x * u + y * v;
    b += x * v - y * u;
  });
  [a, b] = [a / spread, b / spread];
  return { a, b, u: gx - a * px + b * py, v: gy - b * px - a * py };
}

// Returns the aligned face, uint8 [size, size, 3]; black outside of the picture.
function cropped(picture, points) {
  const { size, margin, rise } = card.crop;
  const place = (share) => (share + margin) / (1 + 2 * margin);
  const goals = TEMPLATE.map(([x, y]) => [place(x) * size - 0.5, (place(y) - rise) * size - 0.5]);
  const { a, b, u, v } = similarity(points, goals);
  const square = a * a + b * b, shrink = 1 / Math.sqrt(square);
  const source = (x, y) => [(a * (x - u) + b * (y - v)) / square, (a * (y - v) - b * (x - u)) / square];
  // A crop that shrinks the picture by more than 2 is taken from means over blocks, which avoids aliasing.
  const factor = shrink > 2 ? Math.floor(shrink + 1e-6) : 1;
  const ends = [-0.5, size - 0.5], corners = ends.flatMap((x) => ends.map((y) => source(x, y)));
  const [[left, columns, wide], [top, rows, tall]] = [picture.width, picture.height].map((limit, k) => {
    const seen = corners.map((corner) => corner[k]), clip = (v) => Math.min(Math.max(v, 0), limit);
    const low = clip(Math.floor(Math.min(...seen)) - 2 * factor);
    const length = clip(Math.ceil(Math.max(...seen)) + 2 * factor + 1) - low;
    const count = Math.max(rounded(length / factor), 1);
    return [low, count, length / count]; // first pixel, number of blocks, pixels of a block
  });
  const share = (pixel, block, length) => Math.min(pixel + 1, (block + 1) * length) - Math.max(pixel, block * length);
  const block = (x, y, c) => {
    if (x < 0 || y < 0 || x >= columns || y >= rows) return 0;
    let sum = 0;
    for (let i = Math.floor(y * tall); i < (y + 1) * tall - 1e-6; i++)
      for (let j = Math.floor(x * wide); j < (x + 1) * wide - 1e-6; j++)
        sum += share(i, y, tall) * share(j, x, wide) * picture.data[4 * ((top + i) * picture.width + left + j) + c];
    return sum / (wide * tall);
  };
  const face = new Uint8ClampedArray(size * size * 3); // it rounds
  for (let i = 0; i < size * size; i++) {
    const [px, py] = source(i % size, Math.floor(i / size));
    const x = (px - left + 0.5) / wide - 0.5, y = (py - top + 0.5) / tall - 0.5;
    const [x0, y0] = [Math.floor(x), Math.floor(y)], [dx, dy] = [x - x0, y - y0];
    const row = (y, c) => (1 - dx) * block(x0, y, c) + dx * block(x0 + 1, y, c);
    for (let c = 0; c < 3; c++) face[3 * i + c] = (1 - dy) * row(y0, c) + dy * row(y0 + 1, c);
  }
  return face;
}

// Returns the probabilities of an aligned face, in the order of the card's classes.
async function classify(face) {
  const [height, width, channels] = card.data.picture;
  const gray = (_, i) => Math.round(0.299 * face[3 * i] + 0.587 * face[3 * i + 1] + 0.114 * face[3 * i + 2]);
  const pixels = channels === 3 ? new Uint8Array(face) : Uint8Array.from({ length: height * width }, gray);
  const faces = new ort.Tensor("uint8", pixels, [1, height, width, channels]);
  return [...(await classifier.run({ faces })).probabilities.data];
}

// Returns the pixels of an image or of a frame of a video, and all that is known of its faces.
async function analyzed(source, width, height) {
  const picture = pixelsOf(source, width, height), faces = await detect(source, width, height);
  for (const face of faces) {
    face.crop = cropped(picture, face.points);
    face.probabilities = await classify(face.crop);
    face.confidence = Math.max(...face.probabilities);
    face.expression = card.classes[face.probabilities.indexOf(face.confidence)];
    face.unsure = card.unsure != null && face.confidence < (card.unsure.threshold ?? Infinity);
  }
  return [picture, faces];
}

function show(picture, faces) {
  const canvas = element("canvas"), context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  element("picture").className = "full";
  context.putImageData(picture, 0, 0);
  const unit = Math.max(picture.width, picture.height) / 300;
  [context.font, context.lineWidth] = [`600 ${6 * unit}px system-ui, sans-serif`, unit];
  for (const { box, expression, confidence, unsure } of faces) {
    context.strokeStyle = context.fillStyle = unsure ? "#d9822b" : "#3b76d6";
    context.strokeRect(...box);
    const text = `${expression}${unsure ? "?" : ""} ${percent(confidence)}`;
    const [width, height] = [context.measureText(text).width + 4 * unit, 8.5 * unit];
    const y = Math.max(box[1] - height, 0), x = Math.max(Math.min(box[0], picture.width - width), 0);
    context.fillRect(x - unit / 2, y, width, height);
    context.fillStyle = "#fff";
    context.fillText(text, x + 1.5 * unit, y + 6.4 * unit);
  }
  element("faces").replaceChildren(...faces.map(described));
  element("status").textContent = faces.length ? "" : "No face was found.";
}

// Returns what is said of a face: its crop, the label, and a bar for each class.
function described({ crop, expression, confidence, unsure, probabilities }) {
  const copy = (id) => element(id).content.firstElementChild.cloneNode(true);
  const face = copy("face"), canvas = face.querySelector("canvas"), side = card.crop.size;
  const thumbnail = new ImageData(side, side);
  thumbnail.data.forEach((_, i, data) => (data[i] = i % 4 === 3 ? 255 : crop[3 * (i >> 2) + (i % 4)]));
  canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(thumbnail, 0, 0);
  face.querySelector("b").textContent = expression;
  face.querySelector("span").textContent = percent(confidence) + (unsure ? ", unsure" : "");
  face.classList.toggle("unsure", unsure);
  face.dataset.probabilities = JSON.stringify(probabilities);
  for (const [n, name] of card.classes.entries()) {
    const bar = copy("bar"), [label, line, number] = bar.children;
    label.textContent = name;
    line.style.backgroundSize = `${100 * probabilities[n]}% 100%`;
    number.textContent = percent(probabilities[n]);
    face.append(bar);
  }
  return face;
}

async function photo(file) {
  stopCamera();
  try {
    const image = await createImageBitmap(file, { colorSpaceConversion: "none" }); // as fer_jax reads it
    show(...(await analyzed(image, image.width, image.height)));
  } catch (error) {
    element("status").textContent = `${file.name} cannot be shown (${error.message}).`;
  }
}

async function camera() {
  if (stream) return stopCamera();
  const video = document.createElement("video");
  try {
    const mine = (stream = await navigator.mediaDevices.getUserMedia({ video: true }));
    element("camera").textContent = "Stop the camera";
    video.srcObject = mine;
    await video.play();
    while (stream === mine) {
      const result = await analyzed(video, video.videoWidth, video.videoHeight);
      if (stream === mine) show(...result);
      await new Promise(requestAnimationFrame);
    }
  } catch (error) {
    stopCamera();
    element("status").textContent = `There is no picture of a camera (${error.message}).`;
  }
}

function stopCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = undefined;
  element("camera").textContent = "Use the camera";
}

// Says which model this is and what its sureness means.
function about() {
  const { scores, unsure, method, data } = card;
  const score = scores?.accuracy ? `: of its test pictures ${percent(scores.accuracy)} are classified correctly` : "";
  const rule = unsure?.threshold
    ? `A prediction below ${percent(unsure.threshold)} is unsure; of those above, ${percent(unsure.test.risk)} were wrong. ` : "";
  return `The model: ${method}, trained on ${data.name}${score}. ${rule}A face does not tell what someone feels.`;
}

async function start() {
  ort.env.wasm.numThreads = 1;
  const load = (name) => ort.InferenceSession.create(name);
  [card, detector, classifier] = await Promise.all([
    fetch("card.json").then((answer) => answer.json()), load("yunet.onnx"), load("model.onnx"),
  ]);
  element("about").textContent = about();
  element("status").textContent = "";
  element("camera").disabled = false;
  element("camera").onclick = camera;
  element("file").onclick = ({ target }) => (target.value = ""); // the same one may be chosen again
  element("file").onchange = ({ target }) => target.files.length && photo(target.files[0]);
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) photo(event.dataTransfer.files[0]);
  };
}

start().catch((error) => (element("status").textContent = `The networks could not be loaded (${error.message}).`));
