// The slices of the series that was read: wheel, keys and slider scroll, buttons lead to findings.
"use strict";

const part = document.getElementById("images");
if (part) watch(part);

async function watch(section) {
  const picture = section.querySelector(".picture");
  const image = document.getElementById("slice");
  const place = document.getElementById("place");
  const where = document.getElementById("where");
  const windows = Array.from(section.querySelectorAll("input[name=window]"));
  const base = "/studies/" + section.dataset.study;
  const answer = await fetch(base + "/series/" + section.dataset.series + "/slices");
  const slices = answer.ok ? await answer.json() : [];
  if (!slices.length) { where.textContent = "The images are not here."; return; }
  place.max = String(slices.length - 1);
  const marked = slices.map((one, at) => (one.findings.length ? at : -1)).filter((at) => at >= 0);
  const ahead = new Map();

  const chosen = () => windows.find((one) => one.checked).value;
  const address = (at) => base + "/slices/" + slices[at].image + "?window=" + chosen();

  function middleOf(finding) {
    const found = slices.map((one, at) => (one.findings.includes(finding) ? at : -1)).filter((at) => at >= 0);
    return found.length ? found[Math.floor(found.length / 2)] : null;
  }

  function load(at) {
    if (at < 0 || at >= slices.length) return;
    const url = address(at);
    if (ahead.has(url)) return;
    const one = new Image();
    one.src = url;
    ahead.set(url, one);
    if (ahead.size > 60) ahead.delete(ahead.keys().next().value);
  }

  function show(at) {
    const to = Math.min(Math.max(at, 0), slices.length - 1);
    const one = slices[to];
    place.value = String(to);
    image.src = address(to);
    const millimetres = one.position_mm === null ? "" : ", at " + one.position_mm.toFixed(1) + " mm";
    const findings = one.findings.length ? ", finding " + one.findings.join(", ") : "";
    where.textContent = (to + 1) + " of " + slices.length + millimetres + findings;
    const opposite = { R: "L", L: "R", A: "P", P: "A", F: "H", H: "F", "": "" };
    const [right, bottom] = one.sides;
    const letters = { right, bottom, left: opposite[right], top: opposite[bottom] };
    for (const side of Object.keys(letters)) picture.querySelector("." + side).textContent = letters[side];
    image.alt = "Slice " + where.textContent;
    for (const near of [1, -1, 2, -2]) load(to + near);
  }

  const now = () => Number(place.value);
  function nextFinding() {
    if (!marked.length) return;
    const groups = marked.filter((at, index) => index === 0 || marked[index - 1] !== at - 1);
    const next = groups.find((at) => at > now());
    show(next === undefined ? groups[0] : next);
  }

  place.addEventListener("input", () => show(now()));
  for (const one of windows) one.addEventListener("change", () => show(now()));
  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    show(now() + Math.sign(event.deltaY));
  }, { passive: false });
  const steps = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 };
  picture.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) { event.preventDefault(); show(now() + steps[event.key]); }
    else if (event.key === "n") nextFinding();
    else if (/^[1-9]$/.test(event.key) && windows[Number(event.key) - 1]) {
      windows[Number(event.key) - 1].checked = true;
      show(now());
    }
  });
  for (const button of document.querySelectorAll("button.show")) {
    button.addEventListener("click", () => {
      const at = middleOf(Number(button.dataset.finding));
      if (at === null) return;
      show(at);
      picture.focus({ preventScroll: true });
      section.scrollIntoView({ block: "start" });
    });
  }
  show(marked.length ? marked[Math.floor(marked.length / 2)] : Math.floor(slices.length / 2));
}
