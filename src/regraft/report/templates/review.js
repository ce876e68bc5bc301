"use strict";
const all = (query, root = document) => [...root.querySelectorAll(query)];
document.documentElement.classList.add("scripted");

// Labels: what is chosen is saved as a table for `regraft data apply-review`.
const choices = all("select[data-row]"), save = document.querySelector("#save");
const classes = all("#classes option");
const chosen = () => choices.filter((choice) => choice.value);
const fill = ({ target }) => {
  if (target.dataset.full) return;
  target.dataset.full = "yes";
  const there = all("option", target).map((option) => option.textContent);
  target.append(...classes.filter((one) => !there.includes(one.textContent)).map((one) => one.cloneNode(true)));
};
for (const choice of choices) {
  choice.addEventListener("pointerdown", fill);
  choice.addEventListener("focus", fill);
  choice.addEventListener("change", () => {
    const count = chosen().length;
    save.disabled = !count;
    document.querySelector("#chosen").textContent = count === 1 ? "1 label chosen" : `${count} labels chosen`;
  });
}
save?.addEventListener("click", () => {
  const lines = chosen().map((choice) => `${choice.dataset.row},${choice.value}`);
  const text = ["path,given,suggested,label", ...lines, ""].join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "relabel.csv";
  link.click();
});

// Maps of the data: pointing at a mark shows its image in all maps; arrow keys go from left to right.
const images = all("#points li");
for (const map of all(".scatter")) {
  const marks = all("use[data-i]", map).sort((a, b) => a.x.baseVal.value - b.x.baseVal.value);
  const tip = map.querySelector(".tip");
  let at = -1;
  const show = (mark) => {
    at = marks.indexOf(mark);
    const image = images[mark.dataset.i], spot = mark.getBoundingClientRect(), box = map.getBoundingClientRect();
    all("use.on").forEach((one) => one.classList.remove("on"));
    all(`use[data-i="${mark.dataset.i}"]`).forEach((one) => one.classList.add("on"));
    tip.replaceChildren(...image.cloneNode(true).childNodes);
    tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(spot.x - box.x + 14, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${spot.y - box.y + (spot.y - box.y > box.height / 2 ? -tip.offsetHeight - 6 : 18)}px`;
  };
  const open = () => {
    const { to } = images[marks[at]?.dataset.i]?.dataset ?? {};
    if (to) location.hash = to;
  };
  map.addEventListener("pointerover", ({ target }) => target.dataset.i && show(target));
  // A finger cannot point without a tap, so a tap leads nowhere else.
  map.addEventListener("click", ({ target, pointerType }) => target.dataset.i && pointerType !== "touch" && open());
  map.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter") open();
    if (event.key === "Escape") tip.hidden = true;
    if (!step) return;
    event.preventDefault();
    show(marks[(at + step + marks.length) % marks.length]);
  });
}
