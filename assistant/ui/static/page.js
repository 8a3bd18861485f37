// What belongs to the whole page: its language, the menu on narrow screens, light and dark, following a reply as it
// grows and saying that it is there.
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

  // A reply that has come is said, for whoever does not see it come.
  const heard = Object.assign(document.createElement('p'), { id: 'heard', className: 'unseen', role: 'status' });
  const newest = () => [...document.querySelectorAll('#thread .reply')].at(-1);
  let before = null; // while something is written: the chat, and the reply that was the last
  const hear = () => {
    const now = Boolean(document.querySelector('#stage .writing'));
    if (now && !before) {
      before = { at: location.search, id: newest()?.dataset.id };
      heard.textContent = '';
    } else if (!now && before) {
      const same = before.at === '' || before.at === location.search; // a new chat gets its address meanwhile
      const choice = document.querySelector('#stage .choice h2'), reply = newest();
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
    const changed = (changes) => {
      follow(changes);
      hear();
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
