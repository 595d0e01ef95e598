// Filters the table of tests. Without scripts all of it is there.
const form = document.querySelector('form.filter');
if (form) {
  form.hidden = false;
  const rows = [...document.querySelectorAll('table.tests tbody tr')];
  const told = document.getElementById('shown');
  const filter = () => {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const section = form.elements.section?.value ?? '';
    const verdicts = new Set([...form.querySelectorAll('input[name=verdict]:checked')].map((box) => box.value));
    const differ = form.elements.differ?.checked;
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!section || row.dataset.section === section)
        && (verdicts.size === 0 || verdicts.has(row.dataset.verdict)) && (!differ || 'differ' in row.dataset);
      row.hidden = !fits;
      shown += fits;
    }
    told.textContent = `${shown} of ${rows.length} tests`;
  };
  form.addEventListener('input', filter);
  form.addEventListener('submit', (event) => event.preventDefault());
  filter();
}
