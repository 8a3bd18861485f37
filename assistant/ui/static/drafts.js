// What was written and not sent comes back with the page, to whom it belongs; Gradio reloads a page whose server was
// away. Whoever signs out leaves nothing in the tab.
(() => {
  if (window.mynahDrafts) return; // Gradio runs what is in the head twice
  window.mynahDrafts = true;
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
    if (fresh) {
      left.system = field('#system textarea')?.value;
      left.unlearned = field('#private input')?.checked;
    }
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
      // What is set for the chat comes first, so that nothing is sent without it. It is folded away, and a field that
      // has just unfolded is still being filled: it must hold what it is given for a while.
      field('#about button')?.click();
      let held = 0, tries = 50;
      const set = setInterval(() => {
        tries -= 1;
        if (!tries || location.search !== draft.at) { // folded again, or another chat is open
          clearInterval(set);
          // It stays for the next time this page is loaded, unless something else is written or set until then.
          restored = Boolean(box.value);
          const anew = ({ target }) => { restored ||= Boolean(target.closest('#box, #about, #system, #private')); };
          document.addEventListener('input', anew);
          return;
        }
        const system = field('#system textarea'), unlearned = field('#private input');
        const right = system && unlearned
          && (!draft.system || system.value === draft.system) && (!draft.unlearned || unlearned.checked);
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
  addEventListener('pageshow', ({ persisted }) => {
    if (persisted) window.mynahLeaving = false; // back from a sign-out that did not arrive
  });

  const begin = () => {
    new MutationObserver(restoreDraft).observe(document.body, {
      childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ['disabled'],
    });
  };
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', begin);
  else begin();
})();
