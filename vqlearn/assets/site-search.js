/* Search in all pages: the sections are in search-index.js, which is loaded with the first search, so that this works
   from a disk as well. */
(() => {
  "use strict";
  const MOST = 30; // results that are shown
  const AROUND = 80; // characters of an excerpt before and after what was found
  const folder = new URL(".", document.currentScript.src);
  const plain = text => // lower case without accents, and as long as before
    text.toLowerCase().replace(/[^\0-\x7f]/g, sign => {
      const first = sign.normalize("NFKD")[0];
      return first.length === sign.length ? first : sign;
    });
  const made = (tag, parts, ...children) => {
    const element = Object.assign(document.createElement(tag), parts);
    element.append(...children);
    return element;
  };

  // ------------------------------------------------------------------------------------------------- what is found

  let sections = null;
  const loaded = () =>
    new Promise((done, failed) => {
      if (sections) return done();
      const script = made("script", { src: new URL("search-index.js", folder) });
      script.onerror = () => failed(new Error("The list of all sections could not be loaded."));
      script.onload = () => {
        sections = vqlearnIndex.sections.map(([page, name, heading, text]) => {
          const [address, title] = vqlearnIndex.pages[page];
          const kind = ["", "docs", "reference", "source"].indexOf(address.includes("/") ? address.split("/")[0] : "");
          return { address, name, heading, title, text, kind, folded: [heading, title, text].map(plain) };
        });
        done();
      };
      document.head.append(script);
    });

  const WORTH = [[12, 8, 5], [4, 3, 2], [3, 2, 1]]; // in heading, title, text: as a whole word, its beginning, inside
  const worth = (text, word, [whole, beginning, inside]) => {
    let best = 0;
    for (let at = text.indexOf(word); at >= 0 && best < whole; at = text.indexOf(word, at + 1)) {
      const begins = at === 0 || !/[\p{L}\p{N}]/u.test(text[at - 1]);
      const ends = !/[\p{L}\p{N}]/u.test(text[at + word.length] || " ");
      best = Math.max(best, begins ? (ends ? whole : beginning) : inside);
    }
    return best;
  };
  const search = query => {
    const words = plain(query).split(/\s+/).filter(Boolean);
    const phrase = words.join(" ");
    const found = sections.map(section => {
      const scores = words.map(word => WORTH.reduce((sum, each, i) => sum + worth(section.folded[i], word, each), 0));
      const [heading, , text] = section.folded;
      const extra = (heading === phrase ? 30 : 0) + (heading.includes(phrase) ? 8 : 0) + (text.includes(phrase) ? 4 : 0);
      return { section, had: scores.filter(Boolean).length, score: scores.reduce((a, b) => a + b, extra) };
    });
    const most = Math.max(1, ...found.map(each => each.had));
    const best = found.filter(each => each.had === most);
    best.sort((a, b) => b.score - a.score || a.section.kind - b.section.kind);
    return { words, whole: most === words.length, best: best.map(each => each.section) };
  };

  // ------------------------------------------------------------------------------------------------ how it is shown

  const marked = (text, words) => { // as nodes, with what was found in <mark>
    const folded = plain(text), nodes = [];
    let done = 0;
    while (done < text.length) {
      const next = words
        .map(word => [folded.indexOf(word, done), word.length])
        .filter(([at]) => at >= 0)
        .sort((a, b) => a[0] - b[0] || b[1] - a[1])[0];
      if (!next) break;
      nodes.push(text.slice(done, next[0]), made("mark", { textContent: text.slice(next[0], next[0] + next[1]) }));
      done = next[0] + next[1];
    }
    return [...nodes, text.slice(done)];
  };
  const excerpt = ({ text, folded }, words) => {
    const places = words.map(word => folded[2].indexOf(word)).filter(at => at >= 0);
    const at = places.length ? Math.min(...places) : 0;
    let from = Math.max(0, at - AROUND), to = Math.min(text.length, at + AROUND + 40);
    if (from) from = text.indexOf(" ", from) + 1 || from;
    if (to < text.length) to = Math.max(text.lastIndexOf(" ", to), from + 1);
    return (from ? "… " : "") + text.slice(from, to) + (to < text.length ? " …" : "");
  };
  const result = (section, words) => {
    const href = new URL(section.address + (section.name && `#${section.name}`), folder).href;
    const link = made("a", { href }, ...marked(section.heading, words));
    const where = section.heading === section.title ? "" : section.title;
    const parts = [link, made("small", { textContent: where }), made("p", {}, ...marked(excerpt(section, words), words))];
    return made("li", {}, ...parts);
  };

  let dialog = null;
  const build = () => {
    const input = made("input", { type: "search", placeholder: "Words, names, symbols", autocomplete: "off" });
    input.spellcheck = false;
    input.setAttribute("aria-label", "Search the course, the guides and the reference");
    const close = made("button", { type: "button", textContent: "Close", onclick: () => dialog.close() });
    const said = made("p", { className: "said" });
    said.setAttribute("role", "status");
    const list = made("ol", { className: "found" });
    dialog = made("dialog", { className: "search" }, made("div", { className: "ask" }, input, close), said, list);
    dialog.setAttribute("aria-label", "Search");
    const show = () => {
      if (!sections) return;
      const { words, whole, best } = input.value.trim() ? search(input.value) : { words: [], whole: true, best: [] };
      list.replaceChildren(...best.slice(0, MOST).map(section => result(section, words)));
      const count = `${best.length} section${best.length === 1 ? "" : "s"}`;
      said.textContent = !words.length ? "" : !best.length ? `Nothing has “${input.value.trim()}”.`
        : (whole ? count : `No section has all of these words; ${count} with some`)
          + (best.length > MOST ? `, the first ${MOST} of them:` : ":");
      list.scrollTop = 0;
    };
    input.addEventListener("input", show);
    dialog.addEventListener("keydown", event => {
      const stops = [input, ...list.querySelectorAll("a")];
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const at = stops.indexOf(document.activeElement);
      if (event.key === "Escape") dialog.close(); // in a field with words it would only empty it
      else if (event.key === "Enter" && at === 0 && stops[1]) stops[1].click();
      else if (step && at >= 0) stops[Math.min(Math.max(at + step, 0), stops.length - 1)].focus();
      else return;
      event.preventDefault();
    });
    list.addEventListener("click", event => {
      if (event.target.closest("a")) dialog.close(); // the section may be on this page
    });
    dialog.addEventListener("click", event => {
      if (event.target === dialog) dialog.close(); // beside it
    });
    document.body.append(dialog);
    said.textContent = "Loading …";
    loaded().then(() => { said.textContent = ""; show(); }, error => { said.textContent = error.message; });
  };
  const open = () => {
    if (!dialog) build();
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("input").select();
  };

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("search");
    button.hidden = false;
    button.addEventListener("click", open);
    document.addEventListener("keydown", event => {
      const typing = event.target.closest("input, select, textarea, dialog");
      const asked = event.key === "/" ? !event.ctrlKey && !event.metaKey && !event.altKey && !typing
        : event.key === "k" && (event.ctrlKey || event.metaKey);
      if (!asked) return;
      event.preventDefault();
      open();
    });
  });
})();
