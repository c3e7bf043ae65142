/* What every page does for its reader: colours and hidden code that stay as chosen, buttons that copy, hints where a
   box holds more than it shows. Without it a page can still be read whole. */
(() => {
  "use strict";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const remembered = (name, value) => {
    try {
      if (value) localStorage.setItem(`vqlearn-${name}`, value);
      return localStorage.getItem(`vqlearn-${name}`);
    } catch (error) {
      return value || null; // a browser that keeps nothing for files
    }
  };
  const dark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : system.matches);
  const hidden = () => root.dataset.code === "hidden";
  for (const [name, values] of [["scheme", ["light", "dark"]], ["code", ["hidden", "shown"]]]) {
    const value = remembered(name); // before anything is drawn
    if (values.includes(value)) root.dataset[name] = value;
  }

  const colours = () => {
    const button = document.getElementById("scheme");
    const name = () => {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `${button.textContent} colours`);
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.scheme = remembered("scheme", dark() ? "light" : "dark");
      name();
    });
    system.addEventListener("change", name);
    name();
  };

  const hideCode = () => {
    const button = document.getElementById("code");
    if (!button) return; // no notebook
    const name = () => {
      button.textContent = hidden() ? "Show code" : "Hide code";
      button.setAttribute("aria-label", `${button.textContent} of this notebook`);
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      const seen = [...document.querySelectorAll("article > :not(.cell)")].find(
        part => part.getBoundingClientRect().top > 60,
      );
      const before = seen && seen.getBoundingClientRect().top;
      root.dataset.code = remembered("code", hidden() ? "shown" : "hidden");
      name();
      if (seen && scrollY) scrollBy({ top: seen.getBoundingClientRect().top - before, behavior: "instant" });
    });
    name();
  };

  const copied = async text => {
    try {
      await navigator.clipboard.writeText(text);
    } catch (error) {
      const area = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
      document.body.append(area); // the way of browsers that give files no clipboard
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  const copyButtons = () => {
    const spoken = Object.assign(document.createElement("p"), { className: "unseen" });
    spoken.setAttribute("role", "status");
    document.querySelector("main").append(spoken);
    document.querySelectorAll("main:not(.wide) .code").forEach(box => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Copy" });
      button.className = "copy";
      button.setAttribute("aria-label", "Copy this code");
      button.addEventListener("click", async () => {
        await copied(box.querySelector("pre").textContent.replace(/\n$/, ""));
        button.textContent = "Copied";
        spoken.textContent = "The code is copied.";
        setTimeout(() => { button.textContent = "Copy"; spoken.textContent = ""; }, 2000);
      });
      box.prepend(button);
    });
  };

  const SMALLEST = 0.72; // of its size
  const fitting = () => { // a formula that is a little too wide is set smaller; what is wider still has to be moved
    const formulas = [...document.querySelectorAll("main .formula")];
    const fit = () => {
      formulas.forEach(formula => { formula.style.fontSize = ""; });
      const shares = formulas.map(formula => formula.clientWidth / formula.scrollWidth); // NaN where it is folded away
      formulas.forEach((formula, i) => {
        if (shares[i] < 1 && shares[i] > SMALLEST) formula.style.fontSize = `${Math.floor(99 * shares[i])}%`;
      });
    };
    document.addEventListener("toggle", fit, true);
    window.addEventListener("resize", fit);
    fit();
  };

  const scrolling = () => { // only boxes that scroll are stops of the Tab key, and show that there is more
    const measured = box => {
      const hidden = box.scrollWidth - box.clientWidth;
      return { box, scrolls: hidden > 0, more: hidden - box.scrollLeft > 2 };
    };
    const show = ({ box, scrolls, more }) => {
      box.classList.toggle("more", more);
      if (!box.matches(".broad")) box.tabIndex = scrolls ? 0 : -1;
    };
    const observer = new ResizeObserver(entries => { // first all is read, then written: the page is laid out once
      entries.map(entry => measured(entry.target)).forEach(show);
    });
    document.querySelectorAll("main [tabindex], main .broad").forEach(box => {
      observer.observe(box);
      box.addEventListener("scroll", () => show(measured(box)), { passive: true });
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    colours();
    hideCode();
    copyButtons();
    fitting();
    scrolling();
    const menu = document.querySelector(".menu");
    menu.addEventListener("click", event => {
      if (event.target.closest("a")) menu.open = false;
    });
  });
})();
