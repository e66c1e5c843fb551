// How a backend, router or address stands: a word, and how much it should be seen.

/**
 * @typedef {import('../../types/balancer.d.ts').Backend} Backend
 * @typedef {import('../common/parts.js').Tone} Tone
 * @typedef {import('../common/parts.js').Standing} Standing
 */

/**
 * What probes say comes first, as in `tidegate top`: a backend that is down and drains is down.
 * @param {Backend} backend
 * @returns {Standing}
 */
export function ofBackend(backend) {
  const { admin, health } = backend;
  if (admin === 'disabled') return { word: 'disabled', tone: 'quiet' };
  if (admin === 'draining' && backend.drained) return { word: 'drained', tone: 'quiet' };
  if (health === 'down') return { word: 'down', tone: 'error' };
  if (health === 'unknown') return { word: 'unknown', tone: 'quiet' };
  if (admin === 'draining') return { word: leaving(backend), tone: 'notice' };
  if (backend.held) return { word: 'held', tone: 'warning' };
  if (isFull(backend)) return { word: 'full', tone: 'warning' };
  const part = backend.effective_weight / backend.weight;
  if (part > 0 && part < 1) return { word: `up ${Math.round(part * 100)}%`, tone: 'good' };
  return { word: 'up', tone: 'good' };
}

/** @param {Backend} backend */
function leaving({ leaving: isLeaving, evacuated }) {
  if (isLeaving) return 'leaving';
  return evacuated ? 'evacuated' : 'draining';
}

/** @param {Backend} backend */
export function isFull({ max_connections: most, sessions }) {
  return most > 0 && sessions.exact && sessions.count >= most;
}

/**
 * Whether new clients are sent to it.
 * @param {Backend} backend
 */
export function takesNew(backend) {
  return backend.admin === 'enabled' && backend.health === 'up' && backend.effective_weight > 0;
}

/**
 * @param {import('../../types/balancer.d.ts').Router} router
 * @returns {Standing}
 */
export function ofRouter(router) {
  if (router.role === 'initialize') return { word: 'Stopped', tone: 'error' };
  if (router.leaving) return { word: 'leaving', tone: 'notice' };
  if (router.role === 'active') return { word: 'Active', tone: 'good' };
  return { word: 'Backup', tone: 'quiet' };
}

/**
 * @param {import('../../types/balancer.d.ts').Vip} vip
 * @returns {Standing}
 */
export function ofVip({ state }) {
  const tones = {
    assigned: 'good',
    absent: 'error',
    standby: 'quiet',
    withdrawn: 'warning',
    left: 'warning',
    unmanaged: 'quiet',
  };
  return { word: state, tone: /** @type {Tone} */ (tones[state] ?? 'quiet') };
}
