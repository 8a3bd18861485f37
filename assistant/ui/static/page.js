// What belongs to the whole page: its language, the menu on narrow screens, light and dark, following a reply as it grows
// and saying that it is there, a draft that survives the page, and what to say when the server refuses or does not answer.
(() => {
  if (window.mynahPage) return; // Gradio runs what is in the head twice
  window.mynahPage = true;
  const root = document.documentElement;

  // The scripts' words come from the dictionary that Gradio's components use, by Gradio's own rule.
  const words = window.gradio_config?.i18n_translations?.[navigator.language] ?? {};
  window.mynahSay = (text) => words[text] ?? text;
  if (Object.keys(words).length) root.lang = navigator.language;

  const say = window.mynahSay;
  const side = () => document.getElementById('side');
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

  // An event that is refused before it reaches a handler, and a server that does not answer: Gradio says nothing of the
  // one, and of the other in English.
  let trouble = null;
  const tell = (text, away) => {
    trouble?.remove();
    trouble = make('div', { id: 'trouble', className: 'notice', role: 'alert' });
    trouble.append(make('strong', { textContent: say('That did not work') }), make('p', { textContent: text }));
    if (away) trouble.append(make('a', { href: '/sign-in', target: '_blank', textContent: say('Sign in') }));
    const close = make('button', { textContent: say('Close') });
    close.addEventListener('click', () => trouble?.remove());
    trouble.append(close);
    document.querySelector('.gradio-container')?.append(trouble);
  };
  const plain = window.fetch;
  window.fetch = async (...asked) => {
    const ours = String(asked[0]?.url ?? asked[0]).includes('/gradio_api/run/');
    try {
      const answer = await plain(...asked);
      if (ours && answer.ok) trouble?.remove();
      else if (ours) {
        const said = await answer.clone().json().then(({ error }) => error, () => null);
        tell(said || say('The server answers, but not as it should. Try again in a moment.'), answer.status === 401);
      }
      return answer;
    } catch (error) {
      if (ours && error.name !== 'AbortError') tell(say('The server does not answer. What you wrote is kept; this page comes back when it does.'));
      throw error;
    }
  };

  // What was written and not sent comes back with the page, to whom it belongs; Gradio reloads a page whose server was away.
  const DRAFT = 'mynah-draft';
  const field = (selector) => document.querySelector(selector);
  const who = () => field('#side .me .name')?.textContent;
  let leaving = false, restored = false;
  const put = (into, value) => {
    into.value = value;
    into.dispatchEvent(new Event('input', { bubbles: true }));
  };
  const keepDraft = () => {
    const box = field('#box textarea');
    if (!box || !restored || leaving) return;
    const fresh = !new URLSearchParams(location.search).has('c');
    const draft = { who: who(), at: location.search, text: box.value };
    if (fresh) Object.assign(draft, { system: field('#system textarea')?.value, unlearned: field('#private input')?.checked });
    if (draft.text || draft.system || draft.unlearned) sessionStorage.setItem(DRAFT, JSON.stringify(draft));
    else sessionStorage.removeItem(DRAFT);
  };
  const restoreDraft = () => {
    const box = field('#box textarea:not(:disabled)');
    if (restored || !box || !who()) return;
    restored = true;
    const draft = JSON.parse(sessionStorage.getItem(DRAFT) ?? 'null');
    sessionStorage.removeItem(DRAFT);
    if (draft?.who !== who() || draft.at !== location.search) return;
    if (draft.text && !box.value) put(box, draft.text);
    if (!draft.system && !draft.unlearned) return;
    field('#about button')?.click(); // what is folded away is not there
    setTimeout(() => {
      if (draft.system) put(field('#system textarea'), draft.system);
      if (draft.unlearned && !field('#private input').checked) field('#private input').click();
    }, 300);
  };
  addEventListener('pagehide', keepDraft);
  document.addEventListener('submit', ({ target }) => {
    if (!target.matches('[action="/sign-out"]')) return;
    leaving = true;
    sessionStorage.removeItem(DRAFT);
  });

  // A reply that has come is said, for whoever does not see it come.
  const heard = make('p', { id: 'heard', className: 'unseen', role: 'status' });
  let writing = false;
  const hear = () => {
    const now = Boolean(field('#stage .writing'));
    if (writing && !now) {
      const choice = field('#stage .choice h2');
      const reply = [...document.querySelectorAll('#thread .reply .text')].at(-1);
      heard.textContent = choice ? choice.textContent : `${say('Mynah has replied:')} ${reply?.textContent.trim() ?? ''}`;
    } else if (now && !writing) heard.textContent = '';
    writing = now;
  };

  // Light, dark or as the system says. Gradio follows a class on the body.
  const paint = () => {
    const chosen = localStorage.getItem('mynah-theme');
    const dark = chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    document.body?.classList.toggle('dark', dark);
    root.style.colorScheme = dark ? 'dark' : 'light';
    const bar = dark ? '#2a2621' : '#f2eee5'; // around the page where Mynah is installed as an app
    document.querySelectorAll('meta[name=theme-color]').forEach((meta) => { meta.content = bar; });
  };
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', paint);

  document.addEventListener('click', (event) => {
    if (event.target.closest('[data-page=theme]')) {
      localStorage.setItem('mynah-theme', document.body.classList.contains('dark') ? 'light' : 'dark');
      paint();
    } else if (event.target.closest('[data-page=menu]')) {
      side().classList.toggle('open');
    } else if (!event.target.closest('#side')) {
      side()?.classList.remove('open');
    }
  });

  // Follow the end of the page while a reply grows, unless the reader has scrolled up.
  let following = true;
  const end = () => document.scrollingElement;
  addEventListener('scroll', () => {
    following = end().scrollTop + innerHeight > end().scrollHeight - 120;
  }, { passive: true });
  const follow = (changes) => {
    if (following && changes.some(({ target }) => (target.closest ? target : target.parentElement)?.closest('#thread, #stage'))) {
      end().scrollTop = end().scrollHeight;
    }
  };
  const begin = () => {
    paint();
    document.body.append(heard);
    const changed = (changes) => {
      follow(changes);
      hear();
      restoreDraft();
    };
    const what = { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ['disabled'] };
    new MutationObserver(changed).observe(document.body, what);
  };
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();

  // What opens near the lower edge (a form under a reply) moves into view.
  document.addEventListener('toggle', (event) => {
    if (event.target.open) event.target.scrollIntoView({ block: 'nearest' });
  }, true);
})();
