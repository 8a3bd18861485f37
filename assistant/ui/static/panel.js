// Presses inside a panel become Gradio events: `data-act` says what was done, the other data- values and a form's fields say
// to what. Acts with `data-writes` (they let the model write, or change the list of chats) are sent as 'submit', all others
// as 'click'. Runs once, when the panel appears.
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
// A double click or a key held down is no answer to it.
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
const sure = (button, presses) => {
  if (button.dataset.confirm === undefined) return true;
  if (button.classList.contains('sure')) {
    if (presses > 1) return false;
    asked.until = 0;
    return true;
  }
  asked = { of: nameOf(button), until: Date.now() + 4000 };
  ask(button);
  return false;
};
new MutationObserver(() => {
  restore();
  if (Date.now() >= asked.until) return;
  const again = [...element.querySelectorAll('[data-confirm]:not(.sure)')].filter((button) => nameOf(button) === asked.of);
  again.forEach(ask);
}).observe(element, { childList: true, subtree: true, attributes: true, attributeFilter: ['data-message', 'data-reply', 'data-id', 'data-name'] });

// A panel that is drawn anew keeps its fields where they stand, whatever they were for. So what somebody types into a form of
// a chat or a message is remembered by what the form is for, also while the page is away, and every other form is as it was
// drawn. What was sent is forgotten at the next drawing, unless it was refused.
const around = element.closest('#thread, #side')?.id;
const KEPT = `mynah-typed-${around}`;
const typed = new Map(around ? JSON.parse(sessionStorage.getItem(KEPT) ?? '[]') : []);
const forms = around ? 'details form[data-act]' : '.none';
addEventListener('pagehide', () => {
  const left = [...typed].filter(([, kept]) => !kept.sent);
  if (left.length && !window.mynahLeaving) sessionStorage.setItem(KEPT, JSON.stringify(left));
  else sessionStorage.removeItem(KEPT);
});
document.addEventListener('mynah-refused', () => typed.forEach((kept) => { kept.sent = false; }));
const formOf = ({ dataset: { act, message, reply, id } }) => JSON.stringify([act, message, reply, id]);
let slider = '';
const restore = () => {
  const at = document.activeElement;
  const nowhere = at === document.body;
  for (const form of element.querySelectorAll(forms)) {
    const kept = typed.get(formOf(form));
    if (kept?.sent) typed.delete(formOf(form));
    if (!kept || kept.sent) {
      form.reset();
      continue;
    }
    const field = form.elements[kept.name];
    if (!field) continue;
    if (field.value !== kept.value) field.value = kept.value;
    for (let fold = form.closest('details'); kept.open && fold && element.contains(fold); fold = fold.parentElement.closest('details')) fold.open = true;
    if (kept.open && kept.writing && nowhere) {
      field.focus({ preventScroll: true });
      field.setSelectionRange(...kept.at);
    }
  }
  const lost = nowhere || (at.matches('input[type=range]') && element.contains(at) && at.dataset.name !== slider);
  if (slider && lost) element.querySelector(`input[type=range][data-name="${CSS.escape(slider)}"]`)?.focus({ preventScroll: true });
};
element.addEventListener('input', ({ target }) => {
  const form = target.closest(forms);
  if (form) typed.set(formOf(form), { name: target.name, value: target.value, at: [target.selectionStart, target.selectionEnd], open: true, writing: true });
});
element.addEventListener('focusout', ({ target, relatedTarget }) => {
  const kept = target.isConnected && typed.get(formOf(target.closest('form') ?? element));
  if (kept) kept.writing = false;
  if (relatedTarget) slider = '';
});
element.addEventListener('click', ({ target }) => {
  const details = target.closest('summary')?.parentElement;
  const kept = details && typed.get(formOf(details.querySelector(forms) ?? element));
  if (kept) kept.open = !details.open; // it is about to turn
});

element.addEventListener('click', (event) => {
  const source = event.target.closest('[data-act]');
  if (!source || !element.contains(source) || source.matches('form, input, select')) return;
  if (source.tagName === 'A' && (event.metaKey || event.ctrlKey || event.shiftKey)) return;
  event.preventDefault();
  if (source.dataset.act === 'copy') copy(source);
  else if (source.dataset.act === 'close') {
    if (source.form) typed.delete(formOf(source.form));
    source.form?.reset();
    source.closest('details').open = false;
  } else if (sure(source, event.detail)) {
    if (['open', 'new'].includes(source.dataset.act)) document.getElementById('side').classList.remove('open');
    send(source);
  }
});

element.addEventListener('keydown', (event) => {
  if (event.repeat && event.target.closest('[data-confirm]')) event.preventDefault();
});

element.addEventListener('submit', (event) => {
  const form = event.target.closest('form[data-act]');
  if (!form) return;
  event.preventDefault();
  send(form, Object.fromEntries(new FormData(form)));
  const kept = typed.get(formOf(form));
  if (kept) kept.sent = true; // drawn anew, it begins as it is drawn; refused, it stands as it is
  form.querySelectorAll('input[type=password]').forEach((field) => { field.value = ''; });
  const details = form.closest('details[data-closes]');
  if (details) details.open = false;
});

// A slider is sent once it rests: every key that moves it is a change.
let resting = { name: '', go: () => {}, at: 0 };
element.addEventListener('change', ({ target }) => {
  if (!target.matches('input[type=range][data-act]')) return;
  clearTimeout(resting.at);
  if (resting.name !== target.dataset.name) resting.go();
  const moved = { dataset: { ...target.dataset } }, value = target.value;
  const go = () => {
    resting = { name: '', go: () => {}, at: 0 };
    send(moved, { value });
    setTimeout(() => { slider = ''; }, 4000);
  };
  slider = document.activeElement === target ? target.dataset.name : '';
  resting = { name: target.dataset.name, go, at: setTimeout(go, 400) };
});
