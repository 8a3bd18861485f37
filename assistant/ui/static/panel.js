// Presses inside a panel become Gradio events: `data-act` says what was done, the other data- values and a form's fields say
// to what. Acts that let the model write are sent as 'submit', all others as 'click'. Runs once, when the panel appears.
const send = (source, extra) => {
  const data = { ...source.dataset, ...extra };
  delete data.confirm;
  trigger(source.dataset.writes === undefined ? 'click' : 'submit', data);
};

const copy = async (button) => {
  const text = button.dataset.text ?? button.closest('.code').querySelector('code').textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https the clipboard is closed to pages; selecting the text and copying still works.
    const area = document.body.appendChild(document.createElement('textarea'));
    area.value = text;
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  button.classList.add('done');
  setTimeout(() => button.classList.remove('done'), 1200);
};

// Whatever cannot be taken back asks once more, in its own place, and goes on asking when the panel is drawn anew meanwhile.
let asked = { of: '', until: 0 };
const nameOf = ({ dataset: { act, id, name, reply, thumb } }) => JSON.stringify([act, id, name, reply, thumb]);
const ask = (button) => {
  const before = button.innerHTML;
  const label = button.getAttribute('aria-label');
  button.classList.add('sure');
  button.textContent = button.dataset.confirm;
  if (label) button.setAttribute('aria-label', button.dataset.confirm);
  setTimeout(() => {
    if (!button.isConnected || !button.classList.contains('sure')) return;
    button.classList.remove('sure');
    button.innerHTML = before;
    if (label) button.setAttribute('aria-label', label);
  }, asked.until - Date.now());
};
const sure = (button) => {
  if (button.dataset.confirm === undefined) return true;
  if (button.classList.contains('sure')) {
    asked.until = 0;
    return true;
  }
  asked = { of: nameOf(button), until: Date.now() + 4000 };
  ask(button);
  return false;
};
new MutationObserver(() => {
  if (Date.now() >= asked.until) return;
  const again = [...element.querySelectorAll('[data-confirm]:not(.sure)')].filter((button) => nameOf(button) === asked.of);
  again.forEach(ask);
}).observe(element, { childList: true, subtree: true });

element.addEventListener('click', (event) => {
  const source = event.target.closest('[data-act]');
  if (!source || !element.contains(source) || source.matches('form, input, select')) return;
  if (source.tagName === 'A' && (event.metaKey || event.ctrlKey || event.shiftKey)) return;
  event.preventDefault();
  if (source.dataset.act === 'copy') copy(source);
  else if (source.dataset.act === 'close') source.closest('details').open = false;
  else if (sure(source)) {
    if (['open', 'new'].includes(source.dataset.act)) document.getElementById('side').classList.remove('open');
    send(source);
  }
});

element.addEventListener('submit', (event) => {
  const form = event.target.closest('form[data-act]');
  if (!form) return;
  event.preventDefault();
  send(form, Object.fromEntries(new FormData(form)));
  form.querySelectorAll('input[type=password]').forEach((field) => { field.value = ''; });
  const details = form.closest('details[data-closes]');
  if (details) details.open = false;
});

element.addEventListener('change', (event) => {
  if (event.target.matches('input[type=range][data-act]')) send(event.target, { value: event.target.value });
});
