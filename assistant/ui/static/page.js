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
  const refused = () => document.dispatchEvent(new Event('mynah-refused'));
  let trouble = null, troubled = null; // what is shown, and the event that it is about; null for any: whoever answers again
  const clear = () => {
    trouble?.remove();
    trouble = null;
  };
  const tell = (text, event, away) => {
    refused();
    troubled = event;
    if (trouble?.dataset.text === text) return;
    clear();
    trouble = make('div', { className: 'notice', id: 'trouble', role: 'alert' });
    trouble.dataset.text = text;
    trouble.append(make('strong', { textContent: say('That did not work') }), make('p', { textContent: text }));
    if (away) trouble.append(make('a', { href: '/sign-in', target: '_blank', textContent: say('Sign in') }));
    const close = make('button', { textContent: say('Close') });
    close.addEventListener('click', clear);
    trouble.append(close);
    document.querySelector('.gradio-container')?.append(trouble);
  };
  const numberOf = (body) => {
    try {
      return JSON.parse(body).fn_index;
    } catch {
      return null;
    }
  };
  const plain = window.fetch;
  window.fetch = async (...asked) => {
    if (!String(asked[0]?.url ?? asked[0]).includes('/gradio_api/run/')) return plain(...asked);
    const event = numberOf(asked[1]?.body);
    try {
      const answer = await plain(...asked);
      if (!answer.ok) {
        const said = await answer.clone().json().then(({ error }) => error, () => null);
        const away = answer.status === 401;
        tell(said || say('The server answers, but not as it should. Try again in a moment.'), away ? null : event, away);
      } else if (troubled === null || event === troubled) clear();
      return answer;
    } catch (error) {
      const here = field('#box') ? say('The server does not answer. What you wrote is kept; this page comes back when it does.')
        : say('The server does not answer. This page comes back when it does.');
      if (error.name !== 'AbortError') tell(here, null);
      throw error;
    }
  };

  // What was written and not sent comes back with the page, to whom it belongs; Gradio reloads a page whose server was away.
  const DRAFT = 'mynah-draft';
  const field = (selector) => document.querySelector(selector);
  const who = () => field('#side .me .name')?.textContent;
  let restored = false;
  const put = (into, value) => {
    into.value = value;
    into.dispatchEvent(new Event('input', { bubbles: true }));
  };
  const keepDraft = () => {
    const box = field('#box textarea');
    if (!box || !restored || window.mynahLeaving) return;
    const fresh = !new URLSearchParams(location.search).has('c');
    const left = { who: who(), at: location.search, text: box.value };
    if (fresh) Object.assign(left, { system: field('#system textarea')?.value, unlearned: field('#private input')?.checked });
    if (left.text || left.system || left.unlearned) sessionStorage.setItem(DRAFT, JSON.stringify(left));
    else sessionStorage.removeItem(DRAFT);
  };
  let restoring = false;
  const restoreDraft = () => {
    const box = field('#box textarea:not(:disabled)');
    if (restoring || !box || !who()) return;
    restoring = true;
    const draft = JSON.parse(sessionStorage.getItem(DRAFT) ?? '{}');
    const done = () => {
      if (draft.text && !box.value) put(box, draft.text);
      restored = true;
      sessionStorage.removeItem(DRAFT);
    };
    if (draft.who !== who() || draft.at !== location.search) draft.text = '';
    else if (draft.system || draft.unlearned) {
      // What is set for the chat comes first, so that nothing is sent without it. It is folded away, and a field that has just
      // unfolded is still being filled: it must hold what it is given for a while.
      field('#about button')?.click();
      let held = 0, tries = 50;
      const set = setInterval(() => {
        tries -= 1;
        if (!tries || location.search !== draft.at) { // folded again, or another chat is open
          clearInterval(set);
          restored = true;
          return;
        }
        const system = field('#system textarea'), unlearned = field('#private input');
        const right = system && unlearned && (!draft.system || system.value === draft.system) && (!draft.unlearned || unlearned.checked);
        held = right ? held + 1 : 0;
        if (held === 3) {
          clearInterval(set);
          done();
        }
        if (right || !system || !unlearned) return;
        if (draft.system) put(system, draft.system);
        if (draft.unlearned && !unlearned.checked) unlearned.click();
      }, 100);
      return;
    }
    done();
  };
  addEventListener('pagehide', keepDraft);
  document.addEventListener('submit', ({ target }) => {
    if (!target.matches('[action="/sign-out"]')) return;
    window.mynahLeaving = true;
    sessionStorage.clear();
  });

  // A reply that has come is said, for whoever does not see it come.
  const heard = make('p', { id: 'heard', className: 'unseen', role: 'status' });
  const newest = () => [...document.querySelectorAll('#thread .reply')].at(-1);
  let before = null; // while something is written: the chat, and the reply that was the last
  const hear = () => {
    const now = Boolean(field('#stage .writing'));
    if (now && !before) {
      before = { at: location.search, id: newest()?.dataset.id };
      heard.textContent = '';
    } else if (!now && before) {
      const same = before.at === '' || before.at === location.search; // a new chat gets its address meanwhile
      const choice = field('#stage .choice h2'), reply = newest();
      if (same && choice) heard.textContent = choice.textContent;
      else if (same && reply && reply.dataset.id !== before.id) {
        heard.textContent = `${say('Mynah has replied:')} ${reply.querySelector('.text').textContent.trim()}`;
      }
      before = null;
    }
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
    let noticed;
    const changed = (changes) => {
      follow(changes);
      hear();
      restoreDraft();
      const told = field('#notice .notice')?.outerHTML; // two in a row differ, whatever they say
      if (told && told !== noticed) refused();
      noticed = told;
    };
    const what = { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ['disabled'] };
    new MutationObserver(changed).observe(document.body, what);
  };
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();

  // What opens near the lower edge (a form under a reply) moves into view.
  document.addEventListener('toggle', (event) => {
    if (event.target.open && event.oldState !== 'open') event.target.scrollIntoView({ block: 'nearest' }); // drawn anew is not opened
  }, true);
})();
