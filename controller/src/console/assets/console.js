// Keeps the page live: at each event the page is asked for again and its content replaced. Without this script the page
// reloads itself instead.
"use strict";

const PAUSE_MS = 400;
const IDLE_MS = 10000;
let asked = false;
let timer = 0;

async function refresh() {
  if (asked) {
    return;
  }
  asked = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    const header = page.querySelector("header");
    if (!answer.ok || !fresh || !header) {
      location.reload();
      return;
    }
    document.getElementById("live").replaceChildren(...fresh.childNodes);
    document.querySelector("header p").replaceWith(header.querySelector("p"));
  } catch {
    // The controller is away; the stream reconnects by itself and brings the next refresh.
  } finally {
    asked = false;
  }
}

function soon() {
  if (timer === 0) {
    timer = setTimeout(() => {
      timer = 0;
      refresh();
    }, PAUSE_MS);
  }
}

const stream = new EventSource("/api/v1/events/stream");
stream.addEventListener("event", soon);
stream.addEventListener("open", soon);
setInterval(soon, IDLE_MS);
