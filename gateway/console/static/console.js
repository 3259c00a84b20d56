// Brings the front page up to date without a reload; without JavaScript the page is as it was served.
const EVERY_MS = 5000;

async function update() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["live", "challenges"]) {
      const [shown, now] = [document.getElementById(id), fresh.getElementById(id)];
      if (!shown.isEqualNode(now)) shown.replaceWith(now);
    }
    document.title = fresh.title;
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
}

if (document.getElementById("live")) setInterval(update, EVERY_MS);
