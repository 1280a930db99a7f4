// The console's own script: a few comforts over pages that work without it.
// It stands in the head and blocks, so that the chosen theme is there before the first paint.
(() => {
  "use strict";
  const root = document.documentElement;
  const THEMES = ["system", "light", "dark"];
  const KEPT_AS = "calotype-theme";

  function keptTheme() {
    try {
      const kept = localStorage.getItem(KEPT_AS);
      return THEMES.includes(kept) ? kept : "system";
    } catch {
      return "system"; // storage is off: the system's choice it is
    }
  }

  function wear(theme) {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
  }

  root.classList.add("js");
  wear(keptTheme());

  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  function say(words) {
    const toast = document.getElementById("toast");
    if (!toast) return;
    toast.textContent = words;
    clearTimeout(say.timer);
    say.timer = setTimeout(() => { toast.textContent = ""; }, 4000);
  }

  // The theme: one button goes round light, dark and the system's choice.

  function labelThemes(theme) {
    for (const button of all("[data-theme-button]")) {
      const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      button.setAttribute("aria-label", `Theme: ${theme}. Change to ${next}`);
      button.title = `Theme: ${theme}`;
      for (const icon of all("[data-for-theme]", button)) {
        icon.toggleAttribute("hidden", icon.dataset.forTheme !== theme);
      }
    }
  }

  function nextTheme() {
    const theme = THEMES[(THEMES.indexOf(keptTheme()) + 1) % THEMES.length];
    try {
      localStorage.setItem(KEPT_AS, theme);
    } catch { /* storage is off: it lasts as long as the page */ }
    wear(theme);
    labelThemes(theme);
  }

  // Copying: data-copy is the text itself, data-copy-from the id of the element that holds it.

  async function copy(button) {
    const source = button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
    try {
      await navigator.clipboard.writeText(source ? source.textContent : button.dataset.copy);
    } catch {
      say("The browser did not let the page copy. Select the text and copy it by hand.");
      return;
    }
    say("Copied");
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1600);
  }

  // Times that say how long ago, in the words of the server's filter.

  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const SOON = 5;
  const DAYS_SHOWN = 30;

  function ago(ms) {
    const past = Math.floor((Date.now() - ms) / 1000);
    const seconds = Math.abs(past);
    if (seconds < SOON) return "just now";
    if (seconds > DAYS_SHOWN * UNITS[0][0]) return null; // the server wrote the day
    const [length, unit] = UNITS.find(([span]) => seconds >= span);
    const told = `${Math.floor(seconds / length)} ${unit}`;
    return past >= 0 ? `${told} ago` : `in ${told}`;
  }

  function refreshTimes() {
    for (const time of all("time[data-ms]")) {
      const words = ago(Number(time.dataset.ms));
      if (words !== null && time.textContent !== words) time.textContent = words;
    }
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-theme-button], [data-copy], [data-copy-from]");
    if (target) {
      if (target.hasAttribute("data-theme-button")) nextTheme();
      else copy(target);
    }
    for (const open of all("details.confirm[open], details.menu[open]")) {
      if (!open.contains(event.target)) open.open = false;
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    labelThemes(keptTheme());
    refreshTimes();
    setInterval(refreshTimes, 30_000);
  });
})();
