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
  for (const bar of document.querySelectorAll("title[data-at]:not([data-local])")) {
    bar.textContent = form.format(new Date(bar.dataset.at)) + ": " + bar.dataset.words;
    bar.dataset.local = "";
  }
}

inTheReadersZone();
window.addEventListener("renewed", inTheReadersZone);

// Moments that are asked for are typed in the reader's zone, too, and sent in UTC.
function typedInTheReadersZone(field) {
  const sent = document.createElement("input");
  sent.type = "hidden";
  sent.name = field.name;
  sent.value = field.value;
  field.removeAttribute("name");
  if (field.value) {
    const moment = new Date(field.value + "Z");
    field.value = new Date(moment.getTime() - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  }
  const zone = form.formatToParts(field.value ? new Date(field.value) : new Date()).find((part) => part.type === "timeZoneName");
  if (zone) field.closest("label").querySelector(".zone").textContent = zone.value;
  field.addEventListener("input", () => {
    sent.value = field.value ? new Date(field.value).toISOString().slice(0, 16) : "";
  });
  field.form.append(sent);
}

for (const field of document.querySelectorAll("input[data-utc]")) typedInTheReadersZone(field);
