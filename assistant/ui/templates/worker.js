// Says that the server cannot be reached, in place of the browser's own error page. It stores nothing and touches nothing
// but the opening of Mynah's pages: the page below travels with this script.
const OFFLINE = {{ page|tojson }};
const PAGES = /^\/((my-assistant|admin|sign-in|sign-up)\/?)?$/;

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => {
  // The browser asks the server while the worker is still starting.
  event.waitUntil(Promise.all([self.clients.claim(), self.registration.navigationPreload?.enable()]));
});

const open = async (event) => {
  try {
    return (await event.preloadResponse) ?? (await fetch(event.request));
  } catch {
    return new Response(OFFLINE, { status: 503, headers: { 'Content-Type': 'text/html; charset=utf-8' } });
  }
};
self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.mode !== 'navigate' || request.method !== 'GET') return;
  if (PAGES.test(new URL(request.url).pathname)) event.respondWith(open(event));
});
