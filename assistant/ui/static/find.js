// Search in the left column as one types, and the way to the message that was found.
(() => {
  if (window.mynahFind) return; // Gradio runs what is in the head twice
  window.mynahFind = true;
  let typed = '';
  let html = '';
  let asking = null; // what the server is being asked; null when it is not
  let focused = false;
  let box = null;
  let wanted = new URLSearchParams(location.search).get('m') ?? '';

  const show = () => {
    const place = document.getElementById('found');
    if (!place) return;
    place.innerHTML = html; // made by the server, which escaped all that people wrote
    document.getElementById('side').classList.toggle('finding', html !== '');
  };
  const words = (text) => {
    const line = document.createElement('p');
    line.className = 'quiet';
    line.role = 'alert';
    line.textContent = text;
    return line.outerHTML;
  };
  const answerTo = async (text) => {
    try {
      const response = await fetch(`/search?${new URLSearchParams({ q: text, page: box.dataset.on })}`);
      const isPage = response.headers.get('content-type')?.startsWith('text/html');
      if (isPage) return await response.text();
      const { error } = await response.json();
      return words(error?.message ?? error);
    } catch {
      return words(window.mynahSay('The server did not answer. Check that it runs, then type again.'));
    }
  };
  // One question at a time and none waits for a pause: what was typed meanwhile is asked next.
  const ask = async () => {
    if (!typed.trim()) {
      html = '';
      show();
    } else if (asking === null) {
      asking = typed;
      const answer = await answerTo(asking);
      const changed = asking !== typed;
      asking = null;
      if (changed) {
        ask();
      } else {
        html = answer;
        show();
      }
    }
  };
  document.addEventListener('input', (event) => {
    if (event.target.id !== 'search') return;
    typed = event.target.value;
    ask();
  });
  document.addEventListener('keydown', (event) => {
    if (event.target.id !== 'search' || event.key !== 'Escape' || !typed) return;
    event.target.value = typed = '';
    event.stopPropagation();
    ask();
  }, true);
  document.addEventListener('focusin', (event) => { focused = event.target.id === 'search'; });
  document.addEventListener('click', (event) => {
    wanted = event.target.closest('#found [data-message]')?.dataset.message ?? wanted;
  }, true);

  // The column is drawn anew after every change: what was typed stays, and is looked for again.
  const look = () => {
    const now = document.getElementById('search');
    if (now && now !== box) {
      box = now;
      box.value = typed;
      if (focused) box.focus();
    }
    const place = document.getElementById('found');
    if (html && place && !place.firstChild) {
      show();
      ask();
    }
    const message = wanted && document.getElementById(wanted);
    if (message) {
      wanted = '';
      message.classList.add('hit');
      requestAnimationFrame(() => message.scrollIntoView({ block: 'center' }));
    }
  };
  const begin = () => new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
})();
