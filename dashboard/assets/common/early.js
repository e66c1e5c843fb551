// Runs before anything is painted, so that a page in the dark does not flash.
try {
  const chosen = localStorage.getItem('tidegate-theme');
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
} catch {
  // Without storage the system's choice holds.
}
