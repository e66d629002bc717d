// Keeps the page for use without a network. `make web` fills in the files and their version. A new version replaces all of them at once,
// when the page is open nowhere any more.

const VERSION = "@VERSION@";
const FILES = ["./", ..."@FILES@".split(" ")];

addEventListener("install", (event) => {
  // "no-cache" asks the host whether a file changed, so that what the page has just loaded is not sent again.
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(requests)));
});

addEventListener("activate", (event) => {
  const drop = (names) => Promise.all(names.filter((name) => name !== VERSION).map((name) => caches.delete(name)));
  event.waitUntil(caches.keys().then(drop).then(() => clients.claim()));
});

addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  const kept = caches.open(VERSION).then((cache) => cache.match(event.request, { ignoreSearch: event.request.mode === "navigate" }));
  event.respondWith(kept.then((answer) => answer ?? fetch(event.request)));
});
