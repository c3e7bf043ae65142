// Light or dark: as the system says, until the reader chooses otherwise.
(function () {
  "use strict";
  var root = document.documentElement;
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  function kept(value) {
    try {
      if (value) localStorage.setItem("vqlearn-scheme", value);
      return localStorage.getItem("vqlearn-scheme");
    } catch (error) {
      return value || null; // a browser that keeps nothing for files
    }
  }
  function dark() {
    return root.dataset.scheme ? root.dataset.scheme === "dark" : system.matches;
  }
  var chosen = kept();
  if (chosen === "light" || chosen === "dark") root.dataset.scheme = chosen;
  document.addEventListener("DOMContentLoaded", function () {
    var button = document.getElementById("scheme");
    function name() {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", "Use the " + (dark() ? "light" : "dark") + " colours");
    }
    button.hidden = false;
    button.addEventListener("click", function () {
      root.dataset.scheme = dark() ? "light" : "dark";
      kept(root.dataset.scheme);
      name();
    });
    system.addEventListener("change", name);
    name();
    var menu = document.querySelector(".menu");
    menu.addEventListener("click", function (event) {
      if (event.target.closest("a")) menu.open = false;
    });
  });
})();
