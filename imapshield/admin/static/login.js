// `imapshield admin` prints an address with the token after the #, which browsers do not send.
const token = location.hash.slice(1);
if (token) {
  history.replaceState(null, "", location.pathname);
  const form = document.querySelector("form");
  form.elements.password.value = token;
  form.requestSubmit();
}
