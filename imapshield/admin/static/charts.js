// Charts in SVG. A chart is {title, unit, series: [[key, label, colour]], format, floor}: `floor` is the least top of its
// axis, and the colour is a number, by default that of the series.
const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 150, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20;

function svg(name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The least of 1, 2, 2.5, 5, 10, … that is not below a value.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * power >= value * 0.9999) * power;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", hour12: false});

export class Chart {
  constructor(spec, parent) {
    this.spec = spec;
    this.figure = parent.appendChild(document.createElement("figure"));
    this.caption = this.figure.appendChild(document.createElement("figcaption"));
    this.tip = this.figure.appendChild(document.createElement("div"));
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.drawing = this.figure.appendChild(svg("svg", {role: "img"}));
    this.drawing.addEventListener("pointermove", (event) => this.point(event));
    this.drawing.addEventListener("pointerdown", (event) => this.point(event));
    this.drawing.addEventListener("pointerleave", () => this.leave());
    new ResizeObserver(() => this.data && this.draw()).observe(this.figure);
  }

  // Show points. After a start there are few, so the axis begins later: at least a sixth of the range is shown.
  show(data, range) {
    this.data = data;
    const seconds = data.step * (data.series[this.spec.series[0][0]].length - 1);
    this.span = Math.min(range, Math.max(range / 6, seconds));
    this.draw();
  }

  x(index) {
    const {data, span} = this;
    const points = data.series[this.spec.series[0][0]].length;
    const before = (points - 1 - index) * data.step;
    return LEFT + (this.width - LEFT - RIGHT) * (1 - before / span);
  }

  y(value) {
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / this.top);
  }

  draw() {
    const {spec, data, drawing} = this;
    this.width = Math.max(200, drawing.clientWidth);
    const lines = this.lines();
    const highest = Math.max(spec.floor, ...this.tops(lines).flat());
    const step = Math.max(nice(highest / 3), spec.step || 0);
    this.top = Math.ceil(highest / step - 0.0001) * step;
    drawing.replaceChildren();
    drawing.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    for (let value = 0; value <= this.top * 1.001; value += step) {
      const y = this.y(value);
      drawing.append(svg("line", {class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y}));
      drawing.append(svg("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, spec.format(value)));
    }
    this.times();
    lines.forEach((values, number) => this.line(values, number, lines));
    this.mark = drawing.appendChild(svg("g", {}));
    this.describe(lines);
  }

  times() {
    const every = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600].find((step) => this.span / step <= 5);
    const offset = new Date().getTimezoneOffset() * 60;
    const end = this.data.time;
    for (let time = Math.floor((end - offset) / every) * every + offset; time > end - this.span; time -= every) {
      const x = LEFT + (this.width - LEFT - RIGHT) * (1 - (end - time) / this.span);
      const anchor = x > this.width - 24 ? "end" : x < LEFT + 14 ? "start" : "middle";
      this.drawing.append(svg("text", {x, y: HEIGHT - 5, "text-anchor": anchor}, clock(time)));
      this.drawing.append(svg("line", {class: "grid", x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4}));
    }
  }

  lines() {
    return this.spec.series.map(([key]) => this.data.series[key]);
  }

  // The values at which the lines are drawn.
  tops(lines) {
    return lines;
  }

  colour(number) {
    return this.spec.series[number][2] ?? number;
  }

  line(values, number, lines) {
    if (!values.length) return;
    const points = values.map((value, index) => `${this.x(index).toFixed(1)},${this.y(value).toFixed(1)}`);
    if (values.length === 1) {
      this.drawing.append(svg("circle", {class: `f${number}`, cx: this.x(0), cy: this.y(values[0]), r: 3}));
      return;
    }
    if (lines.length === 1 || number === 0 && this.spec.fill) {
      const base = this.y(0);
      const area = `${this.x(0)},${base} ${points.join(" ")} ${this.x(values.length - 1)},${base}`;
      this.drawing.append(svg("polygon", {class: `area f${number}`, points: area}));
    }
    this.drawing.append(svg("polyline", {class: `line s${number}`, points: points.join(" ")}));
  }

  describe(lines) {
    const {spec} = this;
    const title = document.createElement("b");
    const unit = document.createElement("i");
    title.textContent = spec.title;
    unit.textContent = spec.unit;
    const keys = spec.series.map(([, label], number) => {
      const key = document.createElement("span");
      key.className = `key k${this.colour(number)}`;
      const value = lines[number].at(-1);
      key.textContent = `${label} ${value === undefined ? "–" : spec.format(value)}`.trim();
      return key;
    });
    this.caption.replaceChildren(title, unit, ...keys);
    this.drawing.setAttribute("aria-label", `${spec.title}, ${spec.unit}: ${keys.map((key) => key.textContent).join(", ")}`);
  }

  point(event) {
    const {spec, data} = this;
    const lines = this.lines(), tops = this.tops(lines);
    if (!lines[0].length) return;
    const box = this.drawing.getBoundingClientRect();
    const at = (event.clientX - box.left) * this.width / box.width;
    const back = Math.round((1 - (at - LEFT) / (this.width - LEFT - RIGHT)) * this.span / data.step);
    const index = Math.min(lines[0].length - 1, Math.max(0, lines[0].length - 1 - back));
    const x = this.x(index);
    this.mark.replaceChildren(svg("line", {class: "cross", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM}));
    tops.forEach((values, number) => this.mark.append(svg("circle", {class: `f${this.colour(number)}`, cx: x, cy: this.y(values[index]), r: 3.5})));
    const time = data.time - (lines[0].length - 1 - index) * data.step;
    const texts = spec.series.map(([, label], number) => `${spec.format(lines[number][index])} ${label}`.trim());
    this.tip.textContent = [clock(time), ...texts].join("\n");
    this.tip.hidden = false;
    const left = x * box.width / this.width + 12;
    this.tip.style.left = `${left > box.width / 2 ? left - this.tip.offsetWidth - 8 : left + 14}px`;
  }

  leave() {
    this.tip.hidden = true;
    if (this.mark) this.mark.replaceChildren();
  }
}

// A chart whose series are parts of a sum, one above the other; the first is the lowest.
export class StackedChart extends Chart {
  tops(lines) {
    let sums = null;
    return lines.map((values) => {
      sums = values.map((value, index) => value + (sums ? sums[index] : 0));
      return sums;
    });
  }

  line(values, number, lines) {
    const tops = this.tops(lines);
    const upper = tops[number], lower = number ? tops[number - 1] : upper.map(() => 0);
    // A point is the step that ends at its time, so that the first one is seen.
    const step = (value, index) => [index - 1, index].map((i) => `${Math.max(LEFT, this.x(i)).toFixed(1)},${this.y(value).toFixed(1)}`);
    const points = [...upper.flatMap(step), ...lower.flatMap(step).reverse()];
    this.drawing.append(svg("polygon", {class: `f${this.colour(number)}`, points: points.join(" ")}));
  }
}
