// What to say when an event is refused before it reaches a handler, and when the server does not answer: Gradio says
// nothing of the one, and of the other in English. Panels hear that something was refused, here or in a notice.
(() => {
  if (window.mynahTrouble) return; // Gradio runs what is in the head twice
  window.mynahTrouble = true;
  const say = window.mynahSay; // page.js comes first
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

  const refused = () => document.dispatchEvent(new Event('mynah-refused'));
  let trouble = null; // what is shown
  let troubled = null; // the event that it is about; null for any: whoever answers again
  const clear = () => {
    trouble?.remove();
    trouble = null;
  };
  const tell = (text, event, away) => {
    refused();
    troubled = event;
    if (trouble?.isConnected && trouble.dataset.text === text) return;
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
        const said = await answer.clone().json().then(({ error }) => error?.message ?? error, () => null);
        const away = answer.status === 401;
        const words = said || say('The server answers, but not as it should. Try again in a moment.');
        tell(words, away ? null : event, away);
      } else if (troubled === null || event === troubled) clear();
      return answer;
    } catch (error) {
      const here = document.querySelector('#box')
        ? say('The server does not answer. What you wrote is kept; this page comes back when it does.')
        : say('The server does not answer. This page comes back when it does.');
      if (error.name !== 'AbortError') tell(here, null);
      throw error;
    }
  };

  let noticed;
  const look = () => {
    const told = document.querySelector('#notice .notice')?.outerHTML; // two in a row differ, whatever they say
    if (told && told !== noticed) refused();
    noticed = told;
  };
  const begin = () => {
    new MutationObserver(look).observe(document.body, {
      childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ['disabled'],
    });
  };
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
})();
