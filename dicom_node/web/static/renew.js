// Parts of a page that follow the node: each is fetched anew when something changed, and left alone while it is used.
"use strict";

let busy = false;
let missed = false;

async function follow() {
  if (busy) { missed = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-Renewal": "1" } });
    if (answer.redirected) { location.reload(); return; }
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const now = fresh.getElementById(old.id);
      // What somebody opened stays open.
      for (const opened of now ? old.querySelectorAll("details[open][id]") : []) {
        const same = fresh.getElementById(opened.id);
        if (same) same.open = true;
      }
      if (now && !old.contains(document.activeElement) && old.innerHTML !== now.innerHTML) old.replaceWith(now);
    }
    window.dispatchEvent(new Event("renewed"));
  } catch (error) {
    // The node does not answer: the page stays as it was, and says of when it is.
  } finally {
    busy = false;
    if (missed) { missed = false; setTimeout(follow, 1000); }
  }
}

let known = null;
new EventSource("/events").addEventListener("changed", (event) => {
  if (known !== null && known !== event.data) follow();
  known = event.data;
});
setInterval(follow, 10000);
