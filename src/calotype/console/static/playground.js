// The playground's script: a few comforts over a form that works without it.
(() => {
  "use strict";
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const form = () => document.getElementById("ask");
  const redo = () => htmx.trigger("#changing", "redo");

  // How many characters the prompt has; a character beyond 16 bits counts once, as on the server.

  function count() {
    for (const counter of all("[data-count-of]")) {
      const length = [...document.getElementById(counter.dataset.countOf).value].length;
      counter.textContent = length.toLocaleString("en");
      counter.classList.toggle("pg-over", length > Number(counter.dataset.most));
    }
    const wrong = document.querySelector("#prompt-told .wrong") !== null;
    document.getElementById("prompt").setAttribute("aria-invalid", wrong);
  }

  // What was open, or chosen among the codes, stays so when the server draws it anew.

  const open = new Set();
  let code = "";

  document.addEventListener("toggle", (event) => {
    if (!event.target.matches?.("#choices details")) return;
    if (event.target.open) open.add(event.target.id);
    else open.delete(event.target.id);
  }, true);

  function restore() {
    for (const each of all("#choices details")) if (open.has(each.id)) each.open = true;
    if (code && document.getElementById(code)) document.getElementById(code).checked = true;
    count();
  }

  // Searching among the models.

  function search(field) {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const brand of all("[data-brand]", field.parentElement)) {
      const name = brand.getAttribute("aria-label");
      let left = 0;
      for (const model of all("label", brand)) {
        const text = `${name} ${model.textContent}`.toLowerCase();
        model.hidden = !words.every((word) => text.includes(word));
        left += !model.hidden;
      }
      brand.hidden = !left;
    }
  }

  // A picture from the result becomes a reference of the next request.

  function pick(word) {
    const name = `picked:${word}`;
    if (!all("input", form()).some((input) => input.name === name)) {
      const field = document.createElement("input");
      field.type = "hidden";
      field.name = name;
      field.value = "1";
      document.getElementById("choices").append(field);
    }
    redo();
    form().scrollIntoView();
  }

  let files = 0;

  document.addEventListener("references", (event) => {
    const now = event.target.files.length;
    if (now !== files) {
      files = now;
      redo();
    }
  });

  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt.id === "changing") event.detail.parameters["ask:uploads"] = String(files);
  });

  // What was chosen or typed while the server drew the form is not in its answer: it is asked again.

  let asked = "";

  function settings() {
    const fields = [...new FormData(form())];
    return JSON.stringify(fields.filter(([name, value]) => name !== "prompt" && typeof value === "string"));
  }

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.requestConfig.elt.id !== "changing" || asked === settings()) return;
    event.detail.shouldSwap = false;
    redo();
  });

  // Once the form is on its way, what changed before no longer matters: the answer tells all.

  let sending = false;

  document.addEventListener("htmx:beforeRequest", (event) => {
    const asks = event.detail.requestConfig.elt.id;
    if (asks === "ask") {
      sending = true;
      htmx.trigger("#changing", "htmx:abort");
    } else if (asks === "changing" && sending) event.preventDefault();
    else if (asks === "changing") asked = settings();
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.requestConfig.elt.id === "ask") sending = false;
  });

  // A refusal is the whole form again, whatever its status; what is wrong first has the focus.

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.getResponseHeader("HX-Retarget") !== "#ask") return;
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    if (event.detail.elt.id !== "ask" || !form().querySelector("#told .bad")) return;
    const field = form().querySelector(".wrong")?.closest(".field");
    const within = field?.querySelector(":is(input, select, textarea):not([type=hidden], [type=radio]), :checked, summary");
    (within ?? document.getElementById("told")).focus();
  });

  document.addEventListener("input", (event) => {
    if (event.target.id === "prompt") count();
    else if (event.target.matches("[data-search]")) search(event.target);
  });

  // The search is no field of the form: it neither changes nor sends it.
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-search]")) event.stopPropagation();
    else if (event.target.name === "as-code") code = event.target.id;
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    if (event.target.matches("[data-search]")) event.preventDefault();
    else if (event.target.id === "prompt" && (event.ctrlKey || event.metaKey)) {
      form().requestSubmit(document.getElementById("develop"));
    }
  });

  document.addEventListener("click", (event) => {
    const picked = event.target.closest("[data-use-reference]");
    if (!picked || !form()) return;
    event.preventDefault();
    pick(picked.dataset.useReference);
  });

  document.addEventListener("htmx:afterSwap", restore);
  document.addEventListener("htmx:oobAfterSwap", restore);
  document.addEventListener("DOMContentLoaded", count);
  if (document.readyState !== "loading") count();
})();
