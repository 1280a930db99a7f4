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
      for (const icon of all("[data-for-theme]", button)) icon.hidden = icon.dataset.forTheme !== theme;
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

  // A folded choice: what is chosen shows in its head, and choosing by pointer closes it.

  function showChosen(radio) {
    const picker = radio.closest("[data-picker]");
    if (!picker) return;
    const summary = picker.querySelector("summary");
    const arrow = summary.querySelector("svg.icon");
    const shown = [...radio.closest("label").children].filter((each) => each !== radio);
    summary.replaceChildren(...shown.map((each) => each.cloneNode(true)), arrow);
  }

  // References: a file field becomes a place to drop and paste pictures into. The field itself
  // holds the chosen files all the time, so the form is sent as it would be without this.

  const chosen = new Map(); // the id of the field -> its files, kept when htmx draws it anew

  function button(words, icon, doing, off = false) {
    const made = document.createElement("button");
    made.type = "button";
    made.disabled = off;
    made.setAttribute("aria-label", words);
    made.textContent = icon;
    made.addEventListener("click", doing);
    return made;
  }

  class Drop {
    constructor(box) {
      this.box = box;
      this.input = box.querySelector("input[type=file]");
      this.list = box.querySelector("[data-thumbs]");
      this.most = Number(box.dataset.most);
      this.bytes = Number(box.dataset.maxBytes);
      this.types = this.input.accept.split(",").map((each) => each.trim());
      this.input.multiple = true;
      this.input.addEventListener("change", () => this.add([...this.input.files]));
      for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
        box.addEventListener(name, (event) => {
          event.preventDefault();
          box.classList.toggle("over", name === "dragenter" || name === "dragover");
          if (name === "drop") this.add([...event.dataTransfer.files]);
        });
      }
      this.set(this.files);
    }

    get files() { return chosen.get(this.input.id) ?? []; }

    add(files) {
      const good = files.filter((file) => this.types.includes(file.type));
      const small = good.filter((file) => file.size <= this.bytes);
      if (good.length < files.length) say("Some files are not pictures of a kind that is taken here.");
      else if (small.length < good.length) say(`Some pictures have more than ${Math.floor(this.bytes / 2 ** 20)} MiB.`);
      this.set([...this.files, ...small]);
    }

    set(files) {
      if (files.length > this.most) say(`At most ${this.most} ${this.most === 1 ? "picture" : "pictures"} here: the first ones stay.`);
      const kept = files.slice(0, this.most);
      const carrier = new DataTransfer();
      for (const file of kept) carrier.items.add(file);
      this.input.files = carrier.files;
      chosen.set(this.input.id, kept);
      this.draw(kept);
      this.input.dispatchEvent(new Event("references", { bubbles: true }));
    }

    draw(files) {
      for (const image of all("img", this.list)) URL.revokeObjectURL(image.src);
      this.list.replaceChildren(...files.map((file, at) => this.tile(file, at, files)));
    }

    tile(file, at, files) {
      const [item, image, number, deeds] = ["li", "img", "span", "div"].map((name) => document.createElement(name));
      image.src = URL.createObjectURL(file);
      image.alt = file.name;
      number.className = "nr";
      number.textContent = at + 1;
      deeds.className = "deeds";
      const move = (by) => {
        const order = [...files];
        order.splice(at + by, 0, ...order.splice(at, 1));
        this.set(order);
        this.list.children[at + by].querySelector("button:enabled").focus();
      };
      const drop = () => {
        this.set(files.filter((_, other) => other !== at));
        (this.list.querySelector("button:enabled") ?? this.input).focus();
      };
      const name = `picture ${at + 1}, ${file.name}`;
      deeds.append(
        button(`Move ${name} forward`, "←", () => move(-1), at === 0),
        button(`Remove ${name}`, "✕", drop),
        button(`Move ${name} back`, "→", () => move(1), at === files.length - 1),
      );
      item.append(image, number, deeds);
      return item;
    }
  }

  const drops = new WeakMap();

  function enhance(within) {
    for (const box of all("[data-drop]", within)) {
      if (!drops.has(box)) drops.set(box, new Drop(box));
    }
    const [news] = all("[data-say]", within);
    const said = document.getElementById("said");
    if (news && said && said.textContent !== news.dataset.say) said.textContent = news.dataset.say;
    labelThemes(keptTheme());
    refreshTimes();
  }

  // What the page hears.

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-theme-button], [data-copy], [data-copy-from]");
    if (target?.hasAttribute("data-theme-button")) nextTheme();
    else if (target) copy(target);
    const chosenByPointer = event.detail > 0 && event.target.matches("[data-picker] input");
    for (const open of all("details:is(.confirm, .menu, .picker)[open]")) {
      if (!open.contains(event.target) || (chosenByPointer && open.matches(".picker"))) open.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && event.target.closest("details:is(.confirm, .menu, .picker)[open]");
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-picker] input")) showChosen(event.target);
  });

  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    const drop = drops.get(document.querySelector("[data-drop]"));
    if (!files.length || !drop) return;
    event.preventDefault();
    drop.add(files);
  });

  // Streams: a page that nobody sees hears nothing, for a browser opens few connections to one
  // server. Once it is seen again it is told what is true by then.

  class Stream {
    constructor(url) {
      this.url = url;
      this.listeners = [];
      this.source = null;
      this.over = false;
      this.turn = () => (document.hidden ? this.pause() : this.open());
      document.addEventListener("visibilitychange", this.turn);
      this.turn();
    }

    get readyState() {
      if (this.over) return EventSource.CLOSED;
      return this.source ? this.source.readyState : EventSource.CONNECTING;
    }

    open() {
      if (this.source) return;
      const source = new EventSource(this.url);
      source.onopen = (event) => this.onopen?.(event);
      source.onerror = (event) => {
        if (source.readyState === EventSource.CLOSED) this.close(); // htmx makes another
        this.onerror?.(event);
      };
      for (const [name, doing] of this.listeners) source.addEventListener(name, doing);
      this.source = source;
    }

    pause() {
      this.source?.close();
      this.source = null;
    }

    close() {
      this.over = true;
      this.source?.close();
      document.removeEventListener("visibilitychange", this.turn);
    }

    addEventListener(name, doing) {
      this.listeners.push([name, doing]);
      this.source?.addEventListener(name, doing);
    }

    removeEventListener(name, doing) {
      this.listeners = this.listeners.filter((each) => each[0] !== name || each[1] !== doing);
      this.source?.removeEventListener(name, doing);
    }
  }

  // What is drawn anew by itself waits while it asks whether somebody is sure.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const list = event.detail.target;
    if (!list.matches("[data-live]") || !list.querySelector("details.confirm[open]")) return;
    event.detail.shouldSwap = false;
    clearTimeout(list.again);
    list.again = setTimeout(() => htmx.trigger(list, "again"), 2000);
  });

  document.addEventListener("htmx:load", (event) => enhance(event.target.parentNode ?? document));
  document.addEventListener("htmx:sendError", () => say("The server could not be reached."));
  document.addEventListener("htmx:responseError", (event) => {
    const answer = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    const told = answer.querySelector("[role=alert]")?.textContent.trim();
    say(told || `The server answered with status ${event.detail.xhr.status}.`);
  });

  document.addEventListener("DOMContentLoaded", () => {
    htmx.createEventSource = (url) => new Stream(url);
    enhance(document);
    setInterval(refreshTimes, 30_000);
  });
})();
