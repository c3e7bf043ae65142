/* What is higher or wider than its slide is made smaller before anything is shown. T shows the notebook's text. */
"use strict";
const SMALLEST = 0.4;
const wide = box => box.scrollWidth > box.clientWidth + 1;
const large = box => wide(box) || box.scrollHeight > box.clientHeight + 1;
const shrink = (box, inner, overflows) => {
  const size = parseFloat(getComputedStyle(inner).fontSize);
  let share = 1;
  while (overflows(box) && share > SMALLEST) inner.style.fontSize = `${size * (share -= 0.02)}px`;
  return share;
};
const fit = () => {
  document.querySelectorAll(".slides section:not(.stack)").forEach(slide => {
    const box = slide.querySelector(".fit");
    if (!box || slide.classList.contains("stack")) return;
    const hidden = [slide, slide.parentElement].filter(one => one.tagName === "SECTION");
    const before = hidden.map(one => one.getAttribute("style"));
    hidden.forEach(one => one.style.setProperty("display", "block", "important"));
    box.querySelectorAll(".formula").forEach(one => shrink(one, one, wide));
    box.querySelectorAll(".code pre, .printed, .table").forEach(one => shrink(one, one.querySelector("table") || one, wide));
    box.dataset.share = shrink(box, box, large).toFixed(2);
    hidden.forEach((one, i) => before[i] === null ? one.removeAttribute("style") : one.setAttribute("style", before[i]));
  });
};
const toggle = () => Reveal.configure({ showNotes: !Reveal.getConfig().showNotes });
const loaded = [...document.images].map(image => image.decode().catch(() => null));
Promise.all(loaded)
  .then(() => Reveal.initialize({
    width: 1280, height: 720, margin: 0.02, center: false, hash: true, transition: "none",
    slideNumber: "c/t", navigationMode: "linear", keyboard: { 84: toggle },
  }))
  .then(() => { fit(); document.body.dataset.ready = "yes"; });
