// Sorts and filters the table of the zoo, which the build writes as plain HTML, and shows the
// picture of a row when it is asked for.
(() => {
  const table = document.getElementById("zoo-table");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const column = (title) => heads.findIndex((head) => head.textContent === title);

  function addPicture(row) {
    const link = row.cells[0].querySelector("a");
    const more = document.createElement("button");
    more.className = "zoo-more";
    more.type = "button";
    more.textContent = "+";
    more.setAttribute("aria-expanded", "false");
    more.setAttribute("aria-label", `Picture of the radii of ${link.textContent}`);
    more.addEventListener("click", () => {
      const isOpen = row.nextElementSibling?.classList.contains("zoo-picture");
      if (isOpen) {
        row.nextElementSibling.remove();
      } else {
        const shown = document.createElement("tr");
        shown.className = "zoo-picture";
        const cell = shown.insertCell();
        cell.colSpan = heads.length;
        const image = new Image();
        image.src = link.dataset.picture;
        image.alt = `Radii and gains of ${link.textContent} before and after pre-training`;
        cell.append(image);
        row.after(shown);
      }
      more.textContent = isOpen ? "+" : "\u2212";
      more.setAttribute("aria-expanded", String(!isOpen));
    });
    row.cells[0].prepend(more);
  }

  function closePictures() {
    for (const shown of body.querySelectorAll(".zoo-picture")) {
      shown.previousElementSibling.querySelector(".zoo-more").click();
    }
  }

  function sortBy(index) {
    closePictures();
    const head = heads[index];
    const isAscending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    const key =
      head.dataset.kind === "number"
        ? (row) => Number(row.cells[index].dataset.value)
        : (row) => row.cells[index].textContent;
    const compare =
      head.dataset.kind === "number"
        ? (a, b) => key(a) - key(b)
        : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
    rows.sort((a, b) => (isAscending ? compare(a, b) : compare(b, a)));
    body.append(...rows);
  }

  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortBy(index));
    head.replaceChildren(button);
  });
  rows.forEach(addPicture);

  const controls = document.getElementById("zoo-controls");
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "part of a name";
  search.setAttribute("aria-label", "Part of a name");
  const choices = ["cell", "data", "target"].map((title) => {
    const index = column(title);
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", title);
    choice.add(new Option(`any ${title}`, ""));
    const values = new Set(rows.map((row) => row.cells[index].textContent));
    for (const value of [...values].sort()) choice.add(new Option(value, value));
    return [index, choice];
  });
  const count = document.createElement("output");

  function filter() {
    closePictures();
    const wanted = search.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const name = row.cells[0].querySelector("a").textContent.toLowerCase();
      const isShown =
        name.includes(wanted) &&
        choices.every(([index, choice]) => !choice.value || row.cells[index].textContent === choice.value);
      row.hidden = !isShown;
      shown += isShown;
    }
    count.textContent = `${shown} of ${rows.length}`;
  }

  search.addEventListener("input", filter);
  for (const [, choice] of choices) choice.addEventListener("change", filter);
  controls.append(search, ...choices.map(([, choice]) => choice), count);
  controls.hidden = false;
  filter();
})();
