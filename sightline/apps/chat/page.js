// Keyboard shortcuts of `sightline chat`: 1, 2 and t choose, except in text fields.
const CHOICES = { 1: "left", 2: "right", t: "tie" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("textarea, input, [contenteditable]")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const side = CHOICES[event.key];
  const button = side && document.querySelector(`#choose-${side}`);
  if (button && !button.disabled) {
    event.preventDefault();
    button.click();
  }
});
