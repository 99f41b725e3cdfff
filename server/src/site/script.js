"use strict";
// The page is whole without this: it adds buttons that copy, a search, and a menu that is closed where there is no room.
addEventListener("DOMContentLoaded", () => {
  const menu = document.querySelector(".menu");
  const narrow = matchMedia("(max-width: 52rem)");
  const fold = () => { menu.open = !narrow.matches; };
  fold();
  narrow.addEventListener("change", fold);

  for (const figure of document.querySelectorAll(".code")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = figure.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // Without TLS there is no clipboard for pages: the text is selected, to be copied by hand.
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    figure.append(button);
  }

  const input = document.querySelector("input[type=search]");
  const results = document.querySelector(".results");
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    results.replaceChildren();
    results.hidden = words.length === 0;
    if (results.hidden) return;
    const found = SECTIONS.map(([link, page, heading, text]) => {
      const [title, body] = [`${page} ${heading}`.toLowerCase(), text.toLowerCase()];
      if (!words.every((word) => title.includes(word) || body.includes(word))) return null;
      return { link, page, heading, text, score: words.filter((word) => title.includes(word)).length };
    }).filter(Boolean).sort((one, other) => other.score - one.score).slice(0, 20);
    for (const { link, page, heading, text } of found) {
      const at = Math.max(0, text.toLowerCase().indexOf(words[0]) - 30);
      const item = document.createElement("a");
      const rest = document.createElement("small");
      item.href = link;
      item.textContent = page === heading ? page : `${page}: ${heading}`;
      rest.textContent = text.slice(at, at + 120);
      item.append(rest);
      results.append(item);
    }
    if (found.length === 0) results.textContent = "Nothing found.";
  };
  input.addEventListener("input", show);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape") {
      input.value = "";
      show();
    }
  });
  results.addEventListener("click", () => { results.hidden = true; });
});
