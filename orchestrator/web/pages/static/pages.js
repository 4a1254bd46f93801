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

function isBusy() {
  const writes = document.activeElement && document.activeElement.matches("#live input, #live textarea");
  return writes || document.querySelector("[popover]:popover-open") !== null;
}

let missed = false;

function catchUp() {
  if (missed && !isBusy()) {
    missed = false;
    const feed = document.getElementById("feed");
    if (feed) feed.dispatchEvent(new CustomEvent("changed", { bubbles: true }));
  }
}

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
  if (event.target.id === "live" && isBusy()) {
    missed = true;
    event.preventDefault();
  }
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
