// Reads the assets as they are served.

import { readdir, readFile } from 'node:fs/promises';

export const ASSETS = new URL('../assets/', import.meta.url);

/** @returns {Promise<Map<string, string>>} each asset's text by its path */
export async function assets() {
  const names = await readdir(ASSETS, { recursive: true });
  const files = names.filter((name) => name.includes('.')).sort();
  const texts = files.map(async (name) => [name, await readFile(new URL(name, ASSETS), 'utf8')]);
  return new Map(await Promise.all(texts));
}
