// The grid of cameras: every picture over one WebSocket, drawn on canvases with its boxes. docs/live.md has the messages.
const PROTOCOL = "touchline.live.v1";
const [PICTURE, FIRST, STILL] = [1, 8, 16];
const COLOURS = ["#fde047", "#fb923c", "#38bdf8", "#c084fc"]; // those of touchline/drawing.py
const PLAYER = 2;
const SILENT_MS = 3000;
const LONGEST_RETRY_MS = 10000;

const tiles = new Map(); // by the camera's number
const find = (id) => document.getElementById(id);
let classes = [];
let socket = null;
let retryMs = 500;

class Tile {
  constructor(camera) {
    this.element = find("tile").content.firstElementChild.cloneNode(true);
    this.canvas = this.element.querySelector("canvas");
    this.pen = this.canvas.getContext("2d", { alpha: false });
    this.number = camera.number;
    this.waiting = null; // the newest frame that is not drawn yet
    this.drawing = false;
    this.shownAt = -Infinity;
    this.arrivals = [];
    this.ages = [];
    this.seen = "";
    this.still = false;
    this.update(camera);
    this.canvas.addEventListener("click", () => {
      this.element.classList.toggle("wide");
      subscribe();
    });
    this.part("restart").addEventListener("click", () => ask("POST", `${this.path}/restart`));
    this.part("remove").addEventListener("click", ({ currentTarget: button }) => {
      if (button.classList.contains("sure")) ask("DELETE", this.path);
      button.classList.add("sure");
      button.textContent = "Really remove";
      setTimeout(() => { button.classList.remove("sure"); button.textContent = "Remove"; }, 4000);
    });
  }

  get path() { return `/live/cameras/${encodeURIComponent(this.camera.id)}`; }

  part(name) { return this.element.querySelector(`.${name}`); }

  update(camera) {
    this.camera = camera;
    this.element.dataset.id = camera.id;
    this.element.querySelector("h3").textContent = camera.name || camera.id;
    this.part("source").textContent = [
      camera.url,
      camera.source && `${camera.source.codec} ${camera.source.width}×${camera.source.height}`,
      `${camera.frames.received} received, ${camera.frames.inferred} inferred, ${sum(camera.frames.dropped)} dropped`,
      camera.generation > 1 && `${camera.generation} connections`,
    ].filter(Boolean).join(" · ");
    const stages = Object.entries(camera.stages_ms).map(([name, ms]) => `${name} ${ms.toFixed(ms < 10 ? 1 : 0)}`);
    this.part("times").textContent = stages.length ? `${stages.join(" · ")} ms` : "";
    this.refresh();
  }

  // What stands around the picture, and whether there is one: an old picture is never left as if it were live.
  refresh() {
    const { state, error, since } = this.camera;
    const open = socket && socket.readyState === WebSocket.OPEN;
    const now = performance.now();
    const away = !open || state !== "live" || now - this.shownAt > SILENT_MS;
    this.element.classList.toggle("away", away);
    this.part("lost").hidden = !away;
    const at = new Date(since).toLocaleTimeString();
    const why = !open ? "no connection to the gateway" : `${state} since ${at}${error ? `: ${error.detail}` : ""}`;
    this.element.querySelector(".lost span").textContent = why;
    const badge = this.part("line").querySelector(".state");
    badge.textContent = this.camera.behind && !away ? "behind" : this.still && !away ? "still" : state;
    badge.className = `state ${state === "live" && !this.still ? "good" : "bad"}`;
    this.arrivals = this.arrivals.filter((arrival) => now - arrival < 2000);
    this.part("rate").textContent = away ? "" : `${(this.arrivals.length / 2).toFixed(0)} frames/s`;
    this.part("delay").textContent = away || !this.ages.length ? "" : `${median(this.ages).toFixed(0)} ms`;
    this.part("delay").title = "from a frame's arrival at the gateway until it was sent here";
    this.part("seen").textContent = away ? "" : this.seen;
  }

  // Only the newest is drawn, one at a time.
  async show(frame) {
    this.waiting = frame;
    if (this.drawing) return;
    this.drawing = true;
    while (this.waiting) {
      const next = this.waiting;
      this.waiting = null;
      try {
        await this.draw(next);
      } catch {
        // A picture that cannot be read is not shown; the next one may be.
      }
      tell({ type: "ack", camera: this.number, sequence: next.sequence });
    }
    this.drawing = false;
  }

  async draw(frame) {
    const picture = await createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" }));
    if (this.canvas.width !== picture.width || this.canvas.height !== picture.height) {
      this.canvas.width = picture.width;
      this.canvas.height = picture.height;
    }
    this.pen.drawImage(picture, 0, 0);
    picture.close();
    if (find("boxes").checked) drawBoxes(this.pen, frame);
    const now = performance.now();
    const wasAway = now - this.shownAt > SILENT_MS;
    this.shownAt = now;
    this.still = Boolean(frame.flags & STILL);
    this.arrivals.push(now);
    this.ages = [...this.ages.slice(-24), frame.ageMs];
    const counts = classes.map((name, index) => [name, frame.boxes.filter((box) => box.kind === index).length]);
    this.seen = counts.filter(([, count]) => count).map(([name, count]) => `${count} ${name}`).join(", ");
    if (wasAway || frame.flags & FIRST) this.refresh();
  }
}

const sum = (counts) => Object.values(counts).reduce((all, one) => all + one, 0);
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

function read(buffer) {
  const view = new DataView(buffer);
  const [width, height, count, size] = [32, 34, 36, 38].map((at) => view.getUint16(at, true));
  const frame = {
    kind: view.getUint8(0), flags: view.getUint8(1), number: view.getUint32(4, true), sequence: view.getUint32(8, true),
    width, height, ageMs: view.getUint32(44, true) / 1000, boxes: [],
  };
  let at = view.getUint16(2, true);
  for (let index = 0; index < count; index++, at += size) {
    frame.boxes.push({
      id: view.getUint32(at, true), kind: view.getUint8(at + 4),
      xyxy: [8, 12, 16, 20].map((offset) => view.getFloat32(at + offset, true)),
    });
  }
  frame.jpeg = new Uint8Array(buffer, at, view.getUint32(40, true));
  return frame;
}

function drawBoxes(pen, { width, boxes }) {
  const scale = pen.canvas.width / width;
  const size = Math.max(10, Math.round(pen.canvas.width / 56));
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.lineWidth = Math.max(1.5, pen.canvas.width / 400);
  pen.textBaseline = "bottom";
  for (const { id, kind, xyxy } of boxes) {
    const [x1, y1, x2, y2] = xyxy.map((value) => value * scale);
    pen.strokeStyle = pen.fillStyle = COLOURS[kind] ?? "#ffffff";
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const name = kind === PLAYER ? `${id || "?"}` : id ? `${id} ${classes[kind]}` : classes[kind];
    const wide = pen.measureText(name).width + 6;
    const left = (x1 + x2 - wide) / 2;
    pen.fillRect(left, y1 - size - 4, wide, size + 3);
    pen.fillStyle = "#0f172a";
    pen.fillText(name, left + 3, y1 - 2);
  }
}

function tell(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

// A page that nobody sees asks for nothing.
function subscribe() {
  const widest = Math.max(0, ...[...tiles.values()].map((tile) => tile.canvas.clientWidth));
  const width = Math.max(16, Math.min(8192, Math.round(widest * devicePixelRatio)));
  tell({ type: "subscribe", acks: true, ...(document.hidden ? { cameras: [] } : { width }) });
}

function put(camera) {
  const tile = tiles.get(camera.number);
  if (tile) tile.update(camera);
  else {
    const fresh = new Tile(camera);
    tiles.set(camera.number, fresh);
    find("grid").append(fresh.element);
    subscribe();
  }
  count();
}

function drop(number) {
  tiles.get(number)?.element.remove();
  tiles.delete(number);
  count();
}

function count() {
  const live = [...tiles.values()].filter((tile) => tile.camera.state === "live").length;
  find("count").textContent = tiles.size ? `${live} of ${tiles.size} live` : "";
  find("none").hidden = tiles.size > 0;
}

function state(good, text) {
  find("link").className = `state ${good ? "good" : "bad"}`;
  find("link").textContent = text;
  for (const tile of tiles.values()) tile.refresh();
}

const heard = {
  hello(message) {
    classes = message.classes;
    retryMs = 500;
    const known = new Set(message.cameras.map((camera) => camera.number));
    for (const number of [...tiles.keys()]) if (!known.has(number)) drop(number);
    message.cameras.forEach(put);
    count();
    subscribe();
    state(true, "Connected");
  },
  state: put,
  removed: (message) => drop(message.number),
  error: (message) => console.warn(message.code, message.detail),
};

function connect() {
  const opened = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live/stream`, PROTOCOL);
  socket = opened;
  opened.binaryType = "arraybuffer";
  opened.onmessage = ({ data }) => {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      heard[message.type]?.(message);
      return;
    }
    const frame = read(data);
    if (frame.kind === 1 && frame.flags & PICTURE) tiles.get(frame.number)?.show(frame);
  };
  opened.onclose = ({ code, reason }) => {
    state(false, code === 1013 ? "Too many viewers" : reason || "No connection");
    setTimeout(connect, retryMs);
    retryMs = Math.min(LONGEST_RETRY_MS, retryMs * 2);
  };
}

async function ask(method, path, body) {
  find("refused").hidden = true;
  try {
    const headers = body ? { "Content-Type": "application/json" } : {};
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    if (answer.ok) return true;
    const { detail } = await answer.json().catch(() => ({ detail: `the gateway answered ${answer.status}` }));
    throw new Error(detail);
  } catch (error) {
    find("refused").textContent = error.message;
    find("refused").hidden = false;
    find("adding").open = true;
    return false;
  }
}

find("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  const given = [...new FormData(form)].filter(([, value]) => value.trim());
  if (await ask("POST", "/live/cameras", Object.fromEntries(given))) form.reset();
});
document.addEventListener("visibilitychange", subscribe);
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(subscribe, 300); });
setInterval(() => { for (const tile of tiles.values()) tile.refresh(); }, 500);
connect();
