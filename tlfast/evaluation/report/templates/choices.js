// A choice below each image that the table has: keep, drop or another class. The same image has the same choice everywhere in the page.

const about = JSON.parse(document.getElementById("choice-settings").textContent);
const bar = document.getElementById("choices"), count = bar.querySelector(".count"), result = bar.querySelector(".result");
const storageKey = `tlfast choices ${about.run}`;
const choices = readChoices();
let stored = true;

function readChoices() {
  try {
    const entries = JSON.parse(localStorage.getItem(storageKey) ?? "[]");
    return new Map(entries.filter(([, label]) => label === null || about.classes.includes(label)));
  } catch { // pages of a file may have no storage
    return new Map();
  }
}

function storeChoices() {
  try {
    localStorage.setItem(storageKey, JSON.stringify([...choices]));
  } catch {
    stored = false;
  }
}

// The value of an option is "keep", "drop" or the index of a class, as classes can have any name.
function addOption(parent, value, text) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = text;
  parent.append(option);
}

function addSelect(place) {
  const select = document.createElement("select"), group = document.createElement("optgroup");
  select.setAttribute("aria-label", `Keep, drop or relabel ${place.dataset.name}`);
  group.label = "relabel to";
  addOption(select, "keep", "keep");
  addOption(select, "drop", "drop");
  about.classes.forEach((label, index) => label === place.dataset.label || addOption(group, index, label));
  select.append(group);
  select.addEventListener("change", () => choose(place.dataset.path, select.value));
  place.append(select);
  return select;
}

function choose(path, value) {
  if (value === "keep") choices.delete(path);
  else choices.set(path, value === "drop" ? null : about.classes[value]);
  storeChoices();
  showChoices();
}

function showChoices() {
  selects.forEach((select) => {
    const label = choices.get(select.parentElement.dataset.path);
    select.value = label === undefined ? "keep" : label === null ? "drop" : about.classes.indexOf(label);
    if (select.selectedIndex < 0) select.value = "keep"; // relabelled to the label that the table now has
    select.dataset.choice = label === undefined ? "keep" : label === null ? "drop" : "relabel";
  });
  if (choices.size) bar.hidden = false;
  count.textContent = describeChoices(choices) + (stored ? "" : " (lost when the page is closed)");
  result.textContent = "";
}

async function download() {
  try {
    const rows = await unpackTable(document.getElementById("image-table").textContent);
    const cleaned = applyChoices(rows, choices), link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([toCsv(cleaned)], { type: "text/csv" }));
    link.download = about.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    const command = document.createElement("code");
    command.textContent = about.command;
    result.replaceChildren(`${about.file}: ${cleaned.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} images. Train on it: `, command);
  } catch (error) {
    result.textContent = `The table cannot be written (${error.message}). Try a newer browser.`;
  }
}

function clear() {
  if (choices.size && !confirm(`Clear the choices: ${describeChoices(choices)}?`)) return;
  choices.clear();
  storeChoices();
  showChoices();
}

const selects = [...document.querySelectorAll("[data-path]")].map(addSelect);
bar.querySelector(".download").addEventListener("click", download);
bar.querySelector(".clear").addEventListener("click", clear);
document.querySelectorAll(".with-script").forEach((node) => { node.hidden = false; });
showChoices();
