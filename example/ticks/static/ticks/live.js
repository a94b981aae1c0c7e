// Renews the parts marked data-live every two seconds, from the page the server renders anyway.
const source = document.querySelector("main").dataset.source;

async function renew() {
  const response = await fetch(source, { signal: AbortSignal.timeout(10000) });
  if (!response.ok) throw new Error(response.statusText);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (other) part.replaceWith(other);
  }
}

async function loop() {
  if (!document.hidden) {
    try {
      await renew();
      document.body.classList.remove("stale");
    } catch {
      document.body.classList.add("stale");
    }
  }
  if (document.querySelector("[data-live]")) setTimeout(loop, 2000);
}

setTimeout(loop, 2000);
