const MODEL = __MODEL__;
const MOST_PIXELS = 100e6, REACH = { bilinear: 1, bicubic: 2 }, ONE = 2 ** 22;

const loaded = (async () => {
  if (location.protocol === "file:") {
    throw new Error("from a file browsers load no models; run `python -m http.server` in this folder, "
      + "and open http://localhost:8000/");
  }
  const ort = await import("./ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;  // more would need headers that plain servers do not send
  ort.env.wasm.wasmPaths = new URL("./", location.href).href;
  return { ort, session: await ort.InferenceSession.create("network.onnx") };
})();
say("The model is being loaded.");
loaded.then(() => say(""), error => say("The model cannot be loaded: " + error.message));

let turn = Promise.resolve();

function ask(one) {
  turn = turn.then(() => answer(one)).catch(error => refuse(one, error.message, error.code || "MODEL"));
  return turn;
}

async function answer(one) {
  const { ort, session } = await loaded, { size } = MODEL.preprocessing;
  const view = prepared(await opened(one.file), MODEL.preprocessing);
  const views = new ort.Tensor("uint8", view, [1, size, size, 3]);
  const { probabilities } = await session.run({ views }, ["probabilities"]);
  const top = [...probabilities.data].map((probability, k) => ({ label: MODEL.labels[k], probability }));
  show(one, { top: top.sort((a, b) => b.probability - a.probability).slice(0, 5) });
}

function unusable(why, code) { return Object.assign(new Error(why), { code }); }

async function opened(file) {
  if (!file.size) throw unusable("the file is empty", "IMG-EMPTY");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });  // upright
  } catch {
    throw unusable("it is damaged, or no image that this browser can read", "IMG-CORRUPT");
  }
  const { width, height } = bitmap, { resize } = MODEL.preprocessing;
  if (width * height > MOST_PIXELS) throw unusable("it has too many pixels", "IMG-TOO-LARGE");
  if (resize * resize * Math.max(width, height) > MOST_PIXELS * Math.min(width, height)) {
    throw unusable("it is too long and thin", "IMG-ASPECT");
  }
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  brush.fillStyle = `rgb(${MODEL.background})`;
  brush.fillRect(0, 0, width, height);
  brush.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = brush.getImageData(0, 0, width, height), pixels = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    for (let k = 0; k < 3; k += 1) pixels[to++] = data[from + k];
  }
  return { width, height, pixels };
}

// What follows is Pillow's resize, in fixed point of 22 bits as there: first across, then down.

function prepared(image, { size, resize, mode, interpolation }) {
  const short = Math.min(image.width, image.height), side = mode === "squash" ? size : resize;
  const resized = old => mode === "crop" ? Math.floor(resize * old / short) : side;
  const width = resized(image.width), height = resized(image.height);
  const across = along(image.pixels, image.height, image.width, 1, width, interpolation);
  const whole = along(across, 1, image.height, width, height, interpolation);
  const left = even((width - size) / 2), top = even((height - size) / 2);
  const view = new Uint8Array(3 * size * size);
  for (let y = 0; y < size; y += 1) {
    const start = 3 * ((top + y) * width + left);
    view.set(whole.subarray(start, start + 3 * size), 3 * y * size);
  }
  return view;
}

function even(value) {  // halves are rounded to even, as Python does
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + floor % 2 : Math.round(value);
}

// Resize the middle axis of (rows, old, columns, 3) to `size`.
function along(pixels, rows, old, columns, size, kind) {
  const made = new Uint8Array(3 * rows * size * columns), step = 3 * columns;
  const taps = kind === "nearest" ? nearest(old, size) : filtered(old, size, kind);
  for (let row = 0; row < rows; row += 1) {
    for (let place = 0; place < size; place += 1) {
      const { first, weights } = taps[place];
      for (let k = 0; k < step; k += 1) {
        let sum = ONE / 2, from = (row * old + first) * step + k;
        for (const weight of weights) {
          sum += weight * pixels[from];
          from += step;
        }
        made[(row * size + place) * step + k] = Math.min(Math.max(Math.floor(sum / ONE), 0), 255);
      }
    }
  }
  return made;
}

function nearest(old, size) {
  const step = old / size;
  let place = 0.5 * step;
  return Array.from({ length: size }, () => {
    const first = Math.floor(place);
    place += step;
    return { first, weights: [ONE] };
  });
}

function filtered(old, size, kind) {
  const step = old / size, scale = Math.max(step, 1), reach = scale * REACH[kind];
  const curve = kind === "bicubic" ? bicubic : away => Math.max(1 - away, 0);
  return Array.from({ length: size }, (_, place) => {
    const centre = (place + 0.5) * step;
    const first = Math.max(Math.floor(centre - reach + 0.5), 0);
    const last = Math.min(Math.floor(centre + reach + 0.5), old);
    const shares = Array.from({ length: last - first },
      (_, k) => curve(Math.abs((first + k - centre + 0.5) * (1 / scale))));
    const total = shares.reduce((sum, share) => sum + share, 0);
    const weights = shares.map(share => {
      const exact = share / total * ONE;
      return Math.sign(exact) * Math.floor(Math.abs(exact) + 0.5);
    });
    return { first, weights };
  });
}

function bicubic(away) {
  if (away < 1) return (1.5 * away - 2.5) * away * away + 1;
  return away < 2 ? ((-0.5 * away + 2.5) * away - 4) * away + 2 : 0;
}
