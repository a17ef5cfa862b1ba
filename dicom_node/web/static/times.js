// Times in the reader's zone; without this script they stay in UTC.
"use strict";

const form = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23", timeZoneName: "short",
});

function inTheReadersZone() {
  for (const time of document.querySelectorAll("time[datetime]:not([data-local])")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    time.title = time.textContent;
    time.textContent = form.format(moment);
    time.dataset.local = "";
  }
}

inTheReadersZone();
window.addEventListener("renewed", inTheReadersZone);
