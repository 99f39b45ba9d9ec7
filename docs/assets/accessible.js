// What the theme and Markdown cannot say to those who hear a page. See tests/docs/test_site.py.
"use strict";

function nameParts() {
  document.querySelector(".md-search[role=dialog]:not([aria-label])")?.setAttribute("aria-label", "Search");
  const blocks = [...document.querySelectorAll(".md-typeset pre")];
  document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((part) => {
    part.setAttribute("aria-label", `Code block ${blocks.findIndex((block) => block.contains(part)) + 1}`);
  });
  // A table that is wider than the page is moved by the arrow keys.
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((part) => {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  });
}

// Parts of the table of contents that sound alike, as methods of two classes may, or a class and its module.
const heard = new Map();
document.querySelectorAll("nav[aria-label]").forEach((part) => {
  const name = part.getAttribute("aria-label").trim();
  const times = (heard.get(name.toLowerCase()) ?? 0) + 1;
  heard.set(name.toLowerCase(), times);
  if (times > 1) part.setAttribute("aria-label", `${name} (${times})`);
});

// The corner of a table heads nothing; Markdown has no way to write it.
document.querySelectorAll("th:empty").forEach((corner) => corner.replaceWith(document.createElement("td")));

// The theme adds its buttons to code blocks when they come into view.
new MutationObserver(nameParts).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", nameParts);
nameParts();
