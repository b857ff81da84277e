// Shows the token to the host, and keeps the page's key that it answers with. The token itself is kept nowhere.

import { KEPT_AS } from "./key.js";

const form = document.getElementById("login");
const field = document.getElementById("token");
const enter = document.getElementById("enter");
const why = document.getElementById("why");

/** A browser that is in, but came by a link of another site, has shown no cookie. */
async function goOnWhereIn() {
  if (!localStorage.getItem(KEPT_AS)) return;
  const answer = await fetch("/app.js", { method: "HEAD" });
  if (answer.ok) location.replace("/");
}

async function logIn(token) {
  // A header has no other characters, and neither has a token.
  if (!/^[\x21-\x7e]+$/.test(token)) return "This is not the token: it has characters that no token has.";
  let answer;
  try {
    answer = await fetch("/login", { method: "POST", headers: { authorization: `Bearer ${token}` } });
  } catch {
    return "The host does not answer: try again.";
  }
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) {
    localStorage.setItem(KEPT_AS, said.page_key);
    // A page that is loaded again would count as coming from where it came from first.
    location.replace("/");
    return "";
  }
  if (answer.status === 401) return "This is not the token.";
  return said.detail ?? `The host answered ${answer.status}.`;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  why.textContent = "";
  enter.disabled = true;
  why.textContent = await logIn(field.value.trim());
  enter.disabled = false;
  if (why.textContent !== "") field.select();
});

goOnWhereIn().catch(() => {});
