// Logs in to a page as a person does.

export function split(account) {
  const at = account.indexOf(':');
  return { name: account.slice(0, at), password: account.slice(at + 1) };
}

export async function login(page, url, account) {
  const { name, password } = split(account);
  await page.open(url);
  await page.type('#name', name);
  await page.type('#password', password);
  await page.click('button', 'Log in');
  await page.until(`!!document.querySelector('.health h1')?.textContent`, 'the overview is there');
}
