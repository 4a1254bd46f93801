"use strict";
/* What pages do beyond HTML: the switch of light and dark, forms that are sent once, and live parts that wait while
   somebody writes. Without it, pages work all the same. */

const root = document.documentElement;
const KEY = "theme";

function kept() {
  try { return localStorage.getItem(KEY); } catch { return null; }
}

function wear(theme) {
  if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
}

wear(kept());

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/* Whether somebody writes or chooses, has a sheet open, or sent a form whose answer is on its way. */
function isBusy() {
  const writes = document.activeElement && document.activeElement.matches("#live input, #live textarea, #live select");
  return writes || document.querySelector("[popover]:popover-open, #live form[data-sent]") !== null;
}

/* Whether a change was told that is not shown yet: somebody writes, or an answer got lost. It is asked for until it is. */
let behind = false;

function catchUp() {
  const feed = document.getElementById("feed");
  if (behind && feed && !isBusy()) feed.dispatchEvent(new CustomEvent("changed", { bubbles: true }));
}

function fallBehind() {
  behind = true;
  catchUp();
}

setInterval(catchUp, 3000);
/* Now and then without a change, too: what is said of times would grow old. */
setInterval(() => { if (!document.hidden) fallBehind(); }, 60000);

/* What is shown was true at this time at least. A page that fell behind for longer than a moment says so: nobody shall take
   what it shows for what is. */
let trueAt = Date.now();
let seenAt = Date.now();
const MOMENT_MS = 10000;

function tellBehind() {
  const line = document.getElementById("behind");
  if (!line || document.hidden) return;
  const now = Date.now();
  if (!behind && stream && stream.readyState === EventSource.OPEN) trueAt = now;
  const since = new Date(trueAt).toISOString().slice(11, 19);
  const text = isBusy()
    ? `This page stands still since ${since} UTC, while you write.`
    : `Nothing was heard from the daemon since ${since} UTC. What stands here may have changed.`;
  line.hidden = now - Math.max(trueAt, seenAt) < MOMENT_MS;
  if (line.hidden) line.textContent = ""; else if (line.textContent !== text) line.textContent = text;
}

setInterval(tellBehind, 1000);

/* The stream of changes. The browser itself comes back to one that broke; one that was refused is begun anew. A page that
   nobody sees listens to nothing: browsers allow a server few connections. */
let stream = null;

function listen() {
  const feed = document.getElementById("feed");
  if (!feed || document.hidden || stream) return;
  const mine = stream = new EventSource(feed.dataset.events);
  mine.addEventListener("changed", fallBehind);
  mine.addEventListener("error", () => {
    if (mine !== stream || mine.readyState !== EventSource.CLOSED) return;
    stream = null;
    fallBehind();
    setTimeout(listen, 4000 + 2000 * Math.random());
  });
}

function leave() {
  if (stream) stream.close();
  stream = null;
}

document.addEventListener("DOMContentLoaded", listen);
document.addEventListener("visibilitychange", () => {
  seenAt = Date.now();
  if (document.hidden) leave(); else listen();
});

/* On a phone the name of the page that is open may stand beyond the edge. */
document.addEventListener("DOMContentLoaded", () => {
  const here = document.querySelector("nav [aria-current]");
  if (here) here.closest("nav").scrollLeft = here.offsetLeft - 60;
});

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    wear(theme);
    try { localStorage.setItem(KEY, theme); } catch { /* it holds for this page then */ }
  });
});

/* The key of the form that was sent last: if its answer is lost with the daemon, who signs in again is told its fate. */
function keepTried(value) {
  try { if (value) sessionStorage.setItem("tried", value); else sessionStorage.removeItem("tried"); } catch { /* nothing is told then */ }
}

document.addEventListener("DOMContentLoaded", () => {
  const field = document.querySelector("input[name=tried]");
  if (!field) { keepTried(""); return; }
  try { field.value = field.value || sessionStorage.getItem("tried") || ""; } catch { /* as above */ }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches(".once")) return;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "yes";
  keepTried(form.elements.key.value);
  setTimeout(() => { delete form.dataset.sent; }, 10000);
});

document.addEventListener("htmx:before:request", (event) => {
  if (event.target.id === "live" && isBusy()) event.preventDefault();
});
/* Who began to write while the answer was on its way is left alone as well. */
document.addEventListener("htmx:before:swap", (event) => {
  if (event.target.id === "live" && isBusy()) event.preventDefault();
});
document.addEventListener("htmx:after:swap", (event) => {
  const { sourceElement, response } = event.detail.ctx;
  if (sourceElement.id !== "live" || !response.raw.ok) return;
  behind = false;
  trueAt = Date.now();
  tellBehind();
});
/* What is not there any more, or may not be seen any more, is said by a page of its own. */
document.addEventListener("htmx:response:error", (event) => {
  if ([403, 404].includes(event.detail.ctx.response.status) && !isBusy()) location.reload();
});
document.addEventListener("toggle", (event) => {
  if (event.newState === "open") {
    const field = event.target.querySelector("textarea, input:not([type=hidden])");
    if (field) field.focus();
  } else {
    catchUp();
  }
}, true);
document.addEventListener("focusout", () => setTimeout(catchUp, 0));
