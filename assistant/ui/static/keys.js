// Everything by keyboard. Single keys work where nobody is typing, and can be turned off; "?" lists them all.
(() => {
  if (window.mynahKeys) return; // Gradio runs what is in the head twice
  window.mynahKeys = true;
  const say = window.mynahSay; // page.js comes first
  const last = '#thread .turns > li:last-child ';
  const click = (selector) => {
    const button = document.querySelector(selector);
    if (button?.checkVisibility()) button.click(); // what stands behind a comparison is not there
  };
  const open = (selector) => {
    const details = document.querySelector(selector);
    if (!details) return;
    details.open = true;
    details.querySelector('textarea').focus();
  };
  const find = () => {
    document.getElementById('side').classList.add('open');
    document.getElementById('search').focus();
  };
  const KEYS = new Map([
    ['1', [say('In a comparison: left is better'), () => click('.choice .vote.left')]],
    ['2', [say('In a comparison: right is better'), () => click('.choice .vote.right')]],
    ['0', [say('In a comparison: a tie'), () => click('.choice .vote.tie')]],
    ['+', [say('Thumb up for the last reply'), () => click(`${last}.thumb.up`)]],
    ['-', [say('Thumb down for the last reply'), () => click(`${last}.thumb.down`)]],
    ['r', [say('Write another reply'), () => click(`${last}[data-act=again]`)]],
    ['e', [say('Edit your last message'), () => open(`${last}.edit.again`)]],
    ['m', [say('Write a message'), () => document.querySelector('#box textarea')?.focus()]],
    ['n', [say('New chat'), () => click('#side .new')]],
    ['/', [say('Search your chats'), find]],
    ['?', [say('This list'), () => sheet()]],
  ]);
  const ALWAYS = { Enter: say('Send'), 'Shift Enter': say('A new line'), Esc: say('Stop the reply; close; leave the field') };
  const off = () => localStorage.getItem('mynah-keys') === 'off';
  const make = (tag, text = '') => Object.assign(document.createElement(tag), { textContent: text });

  const sheet = () => {
    document.getElementById('keys')?.remove();
    const dialog = Object.assign(make('dialog'), { id: 'keys', ariaLabel: say('Keys') });
    const list = make('dl');
    const lines = [...[...KEYS].map(([key, [what]]) => [key, what]), ...Object.entries(ALWAYS)];
    for (const [keys, what] of lines) {
      const term = make('dt');
      term.append(...keys.split(' ').flatMap((key) => [make('kbd', key), ' ']));
      list.append(term, make('dd', what));
    }
    const single = Object.assign(make('input'), { type: 'checkbox', checked: !off() });
    single.addEventListener('change', () => localStorage.setItem('mynah-keys', single.checked ? 'on' : 'off'));
    const label = make('label');
    label.append(single, say('Single keys work where I am not typing'));
    const close = make('button', say('Close'));
    close.addEventListener('click', () => dialog.close());
    dialog.append(make('h2', say('Keys')), list, label, close);
    dialog.addEventListener('close', () => dialog.remove());
    document.querySelector('.gradio-container').append(dialog);
    dialog.showModal();
    close.focus();
  };

  const escape = (target) => {
    const side = document.getElementById('side');
    const form = target.closest('details.edit[open], details.more-of[open]');
    if (form) {
      form.querySelector('summary').click(); // panel.js hears that it was closed
      form.querySelector('summary').focus();
    } else if (side?.classList.contains('open')) {
      side.classList.remove('open');
      target.blur();
    } else if (document.querySelector('#stop:not(.hide)')) click('#stop');
    else target.blur();
  };

  document.addEventListener('keydown', (event) => {
    const { key, target } = event;
    if (document.querySelector('#keys[open]') || event.isComposing) return;
    if (key === 'Escape') escape(target);
    if (event.ctrlKey || event.metaKey || event.altKey || (off() && key !== '?')) return;
    if (target.closest('input:not([type=radio], [type=checkbox], [type=range], [type=button]), textarea, select, [contenteditable]')) return;
    if (!KEYS.has(key)) return;
    event.preventDefault();
    if (event.repeat) return; // a key held down would answer questions that nobody has read
    KEYS.get(key)[1]();
  });
  document.addEventListener('click', (event) => {
    if (event.target.closest('[data-page=keys]')) sheet();
  });

  // A comparison takes the focus, so that the keys vote, unless somebody is writing.
  let seen = null, question = ''; // the next question is written into the form of the one before
  const look = () => {
    const choice = document.querySelector('#stage .choice, #questions .choice');
    if (choice === seen && choice?.dataset.question === question) return;
    seen = choice;
    question = choice?.dataset.question;
    const at = document.activeElement;
    if (!choice) return;
    if (at === document.body || (at.matches('#box textarea') && !at.value)) choice.querySelector('h2').focus({ preventScroll: true });
    if (choice.closest('#questions') && choice.getBoundingClientRect().top < 0) choice.scrollIntoView(); // answered below, on a phone
  };
  const begin = () => new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
})();
