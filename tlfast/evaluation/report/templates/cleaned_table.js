// The table of a run's images with the choices of the reader. No function here uses the page, so that tests can run them by themselves.
// A row is [path, label, split, group]. Choices map the path of an image to its new label, or to null if it is dropped.

const COLUMNS = ["path", "label", "split", "group"];

// Return the rows of a table as ImageChoices.pack writes it.
async function unpackTable(packed) {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const blocks = JSON.parse(await new Response(stream).text());
  return blocks.flatMap(([folder, label, split, group, names]) => names.map((name) => [folder + name, label, split, group]));
}

// Return the rows without the dropped images, with the new labels. Choices for images that the table does not have are ignored.
function applyChoices(rows, choices) {
  return rows.filter(([path]) => choices.get(path) !== null).map(([path, label, ...rest]) => [path, choices.get(path) ?? label, ...rest]);
}

// Return the rows as CSV with a header, quoted as by Python's csv module.
function toCsv(rows) {
  const quote = (cell) => (/[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  return [COLUMNS, ...rows].map((row) => `${row.map(quote).join(",")}\r\n`).join("");
}

// Return for example "3 to drop, 2 to relabel".
function describeChoices(choices) {
  const dropped = [...choices.values()].filter((label) => label === null).length;
  return `${dropped} to drop, ${choices.size - dropped} to relabel`;
}

if (typeof module !== "undefined") module.exports = { unpackTable, applyChoices, toCsv, describeChoices };
