"use strict";

// Beside a picture the text stands in a box of its own: the passage is brought into sight in it, and the page left alone.
for (const box of document.querySelectorAll(".columns .document")) {
  const passage = box.querySelector("#passage");
  if (passage) box.scrollTop = passage.offsetTop - box.clientHeight / 4;
}

// Back to the list of results, where the reader came from one.
const back = document.querySelector(".back");
if (back && history.length > 1) {
  back.hidden = false;
  back.firstElementChild.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.back();
  });
}

// Copies the path of a file. Without this script there is no button.
for (const button of document.querySelectorAll("button[data-copy]")) {
  if (!navigator.clipboard) continue; // only where the address is trusted: https, this machine
  button.hidden = false;
  button.addEventListener("click", async () => {
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling); // for the reader to copy it
      return;
    }
    button.textContent = button.dataset.copied;
    setTimeout(() => (button.textContent = said), 2000);
  });
}
