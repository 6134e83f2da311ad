// `imapshield admin` prints an address with the token after the #, which browsers do not send. A link of another site does
// not send the form by itself: wrong tokens would count for the address of this browser, and ban it.
const token = location.hash.slice(1);
if (token) {
  history.replaceState(null, "", location.pathname);
  const form = document.querySelector("form");
  form.elements.password.value = token;
  if (!document.body.classList.contains("by-link")) form.requestSubmit();
}
