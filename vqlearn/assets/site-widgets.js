/* The schedule explorer and the posterior microscope, in place of the pictures of the widgets of the notebooks. */
(() => {
  "use strict";
  const number = x => (x > 0 && x < 0.0005 ? x.toExponential(1) : x.toFixed(3));
  const made = (tag, parts, ...children) => {
    const element = Object.assign(document.createElement(tag), parts);
    element.append(...children);
    return element;
  };
  const drawn = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const words = (x, y, text, anchor = "middle") => drawn("text", { x, y, "text-anchor": anchor }, text);

  /* A labelled slider; `shown` says its value. */
  const slider = (label, { min = 0, max, step = 1, value, shown = String }) => {
    const input = made("input", { type: "range", min, max, step, value });
    const output = made("span", { className: "value", ariaHidden: "true" });
    const box = made("label", {}, made("span", { textContent: label }), input, output);
    const control = { box, input, get value() { return Number(input.value); } };
    control.name = () => {
      output.textContent = shown(control.value);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    control.set = wanted => { input.value = wanted; };
    return control;
  };

  /* The controls, the picture and its words where the still picture was. `draw` returns nodes and a sentence. */
  const panel = (place, title, controls, draw) => {
    const picture = made("div", { className: "picture" });
    const said = made("p", { className: "said" });
    said.setAttribute("role", "status");
    const still = [...place.childNodes];
    const fields = made("fieldset", {}, made("legend", { textContent: title }), ...controls.map(control => control.box));
    let width = 0;
    const refresh = () => {
      controls.forEach(control => control.name());
      const { nodes, sentence } = draw(Math.min(Math.max(width, 260), 620));
      picture.replaceChildren(...nodes);
      said.textContent = sentence;
    };
    place.replaceChildren(fields, picture, said);
    place.classList.add("live");
    still.forEach(node => { if (node.nodeType === Node.ELEMENT_NODE) node.remove(); });
    fields.addEventListener("input", refresh);
    new ResizeObserver(() => {
      if (picture.clientWidth !== width) { width = picture.clientWidth; refresh(); }
    }).observe(picture);
    refresh();
  };

  // ------------------------------------------------------------------------------------------- schedule explorer

  const HEART = ["00000000", "02202200", "23323320", "23333320", "02333200", "00232000", "00020000", "11111111"];
  const CODES = 4, STEPS = 100;
  const CURVES = [["kept", "kept ᾱ", "ᾱ"], ["replaced", "replaced Kβ̄", "Kβ̄"], ["masked", "masked γ̄", "γ̄"]];
  const chance = seed => () => { // mulberry32: equal numbers whenever a picture is drawn
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };

  const curves = (shares, now, width) => {
    const height = 230, left = 36, right = 8, top = 8, bottom = 40;
    const x = t => left + (t / STEPS) * (width - left - right);
    const y = share => height - bottom - share * (height - top - bottom);
    const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      chart.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }));
      chart.append(words(left - 6, y(share) + 4, share.toFixed(2), "end"));
    }
    for (let t = 0; t <= STEPS; t += 20) chart.append(words(x(t), height - bottom + 18, t));
    chart.append(words((left + width - right) / 2, height - 4, "time t"));
    chart.append(drawn("line", { class: "now", x1: x(now), x2: x(now), y1: y(0), y2: y(1) }));
    CURVES.forEach(([name]) => {
      const points = shares[name].map((share, t) => `${x(t).toFixed(1)},${y(share).toFixed(1)}`).join(" ");
      chart.append(drawn("polyline", { class: name, points }));
    });
    return chart;
  };

  const tokens = (shares, t) => {
    const next = chance(3);
    const grid = drawn("svg", { viewBox: "-0.1 -0.1 8.2 8.2", class: "tokens", "aria-hidden": "true" });
    HEART.forEach((row, i) => [...row].forEach((code, j) => {
      const u = next(), drawnCode = Math.floor(next() * CODES);
      const masked = u < shares.masked[t], replaced = !masked && u < shares.masked[t] + shares.replaced[t];
      const seen = masked ? "mask" : replaced ? drawnCode : Number(code);
      grid.append(drawn("rect", { x: j, y: i, width: 1, height: 1, class: `token-${seen}` }));
      if (masked) grid.append(drawn("path", { class: "hatch", d: `M${j} ${i + 1}l1 -1M${j} ${i + 0.5}l.5 -.5M${j + 0.5} ${i + 1}l.5 -.5` }));
      else if (seen !== Number(code)) grid.append(drawn("rect", { x: j + 0.08, y: i + 0.08, width: 0.84, height: 0.84, class: "wrong" }));
    }));
    return made("figure", {}, grid, made("figcaption", { textContent: `t = ${t}` }));
  };

  const legend = (shares, t) => made("ul", { className: "legend" }, ...CURVES.map(([name, label]) => {
    const line = drawn("svg", { viewBox: "0 0 30 6", width: 30, height: 6, "aria-hidden": "true" });
    line.append(drawn("polyline", { class: name, points: "0,3 30,3" }));
    return made("li", {}, line, ` ${label}`, made("sub", { textContent: t }), ` = ${number(shares[name][t])}`);
  }));

  const scheduleExplorer = place => {
    const share = value => value.toFixed(2);
    const kept = slider("kept at t = T", { max: 0.99, step: 0.01, value: 0, shown: share });
    const masked = slider("masked at t = T", { max: 1, step: 0.01, value: 0.9, shown: share });
    const select = made("select", {}, ...["straight line", "cosine"].map(name => made("option", { textContent: name })));
    const shape = { box: made("label", {}, made("span", { textContent: "on the way" }), select), name: () => {} };
    const time = slider("time t", { max: STEPS, value: 50 });
    const giveWay = (one, other) => one.input.addEventListener("input", () => {
      if (one.value + other.value > 1) other.set((1 - one.value).toFixed(2));
    });
    giveWay(kept, masked);
    giveWay(masked, kept);
    panel(place, "Schedule explorer", [kept, masked, shape, time], width => {
      const t = time.value, schedule = vqlearn.toEnds(CODES, STEPS, kept.value, masked.value, select.value);
      const { alphaBar, gammaBar } = schedule;
      const replaced = alphaBar.map((alpha, at) => Math.max(0, 1 - alpha - gammaBar[at]));
      const shares = { kept: alphaBar, replaced, masked: gammaBar };
      const chart = curves(shares, t, width);
      const last = CURVES.map(([name]) => `${number(shares[name][STEPS])} ${name}`).join(", ");
      chart.setAttribute("aria-label", `Three curves against time, which end at ${last}.`);
      const grids = made("div", { className: "row" }, ...[0, 20, 40, 60, 80, 100].map(at => tokens(shares, at)));
      const { alpha, beta, gamma } = vqlearn.between(schedule, Math.max(0, t - 1), t);
      const step = t ? `In the step from ${t - 1} to ${t}: α = ${number(alpha)}, Kβ = ${number(CODES * beta)}, `
        + `γ = ${number(gamma)}.` : "At t = 0 nothing has happened yet.";
      const sums = `From clean data to t = ${t}: ${CURVES.map(([name, , sign]) => `${sign} = ${number(shares[name][t])}`).join(", ")}.`;
      return { nodes: [chart, legend(shares, t), grids], sentence: `${sums} ${step}` };
    });
  };

  // ---------------------------------------------------------------------------------------- posterior microscope

  const FEW = vqlearn.paper(4, 10);
  const NAMES = [...Array(FEW.codes).keys(), "mask"].map(String);
  const bars = (title, values) => {
    const width = 200, height = 116, base = 94, wide = width / values.length;
    const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "bars", role: "img" });
    chart.setAttribute("aria-label", `${title}: ${values.map((value, k) => `${NAMES[k]} ${number(value)}`).join(", ")}`);
    values.forEach((value, k) => {
      const middle = (k + 0.5) * wide, top = base - 74 * value;
      const mask = k === values.length - 1 ? "bar masked" : "bar";
      chart.append(drawn("rect", { class: mask, x: middle - wide * 0.36, y: top, width: wide * 0.72, height: base - top }));
      chart.append(words(middle, top - 5, value ? number(value) : "0"), words(middle, base + 17, NAMES[k]));
    });
    chart.append(drawn("line", { class: "axis", x1: 0, x2: width, y1: base, y2: base }));
    return made("figure", {}, made("figcaption", { textContent: title }), chart);
  };

  const posteriorMicroscope = place => {
    const half = FEW.steps / 2, state = value => NAMES[value];
    const x0 = slider("clean token x_0", { max: FEW.codes - 1, value: 1 });
    const xt = slider("seen token x_t", { max: FEW.codes, value: 2, shown: state });
    const s = slider("earlier time s", { max: FEW.steps - 1, value: half });
    const t = slider("later time t", { min: 1, max: FEW.steps, value: half + 1 });
    s.input.addEventListener("input", () => { if (t.value <= s.value) t.set(s.value + 1); });
    t.input.addEventListener("input", () => { if (s.value >= t.value) s.set(t.value - 1); });
    panel(place, "Posterior microscope", [x0, xt, s, t], () => {
      const { prior, likelihood, posterior } = vqlearn.bayes(FEW, x0.value, xt.value, s.value, t.value);
      const [early, late] = [`x_${s.value}`, `x_${t.value}`];
      const found = { [`prior q(${early} | x_0)`]: prior, [`likelihood q(${late} | ${early})`]: likelihood };
      found[`posterior q(${early} | ${late}, x_0)`] = posterior;
      const top = posterior.indexOf(Math.max(...posterior));
      const given = `x_0 = ${x0.value} and ${late} = ${NAMES[xt.value]}`;
      const sentence = `Given ${given}, ${early} is most likely ${NAMES[top]}, with probability ${number(posterior[top])}.`;
      const panels = Object.entries(found).map(([title, values]) => bars(title, values));
      return { nodes: [made("div", { className: "row wide" }, ...panels)], sentence };
    });
  };

  document.querySelectorAll('[data-widget="schedule_explorer"]').forEach(scheduleExplorer);
  document.querySelectorAll('[data-widget="posterior_microscope"]').forEach(posteriorMicroscope);
})();
