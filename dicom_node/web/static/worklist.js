// The worklist, live: a new list takes the old one's place when the server says that something changed.
"use strict";

const list = document.getElementById("worklist");
const live = document.getElementById("live");
let asking = false;
let again = false;

function focused() {
  const row = document.activeElement && document.activeElement.closest ? document.activeElement.closest("[data-study]") : null;
  return row && list.contains(row) ? row.dataset.study : null;
}

function focusOn(study) {
  const row = Array.from(list.querySelectorAll("[data-study]")).find((one) => one.dataset.study === study);
  if (row) row.querySelector("a.open").focus({ preventScroll: true });
}

async function renew() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    const answer = await fetch("/worklist" + location.search, { headers: { Accept: "text/html" } });
    if (answer.status === 401) { location.reload(); return; }
    if (!answer.ok) throw new Error(String(answer.status));
    const study = focused();
    list.innerHTML = await answer.text();
    window.dispatchEvent(new Event("renewed"));
    if (study) focusOn(study);
    live.textContent = "Live.";
  } catch (error) {
    live.textContent = "The node does not answer; this list is as it was.";
  } finally {
    asking = false;
    if (again) { again = false; renew(); }
  }
}

let known = null;
const events = new EventSource("/events");
events.addEventListener("changed", (event) => {
  if (known !== null && known !== event.data) renew();
  known = event.data;
  live.textContent = "Live.";
});
events.addEventListener("error", () => { live.textContent = "Waiting for the node."; });
// Times grow without any change, too.
setInterval(renew, 30000);

function step(by) {
  const links = Array.from(list.querySelectorAll("a.open"));
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1);
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/") { event.preventDefault(); document.getElementById("number").focus(); }
});
