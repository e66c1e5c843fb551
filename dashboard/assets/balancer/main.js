// Where the page of the balancer begins.

import { run } from '../common/app.js';
import { format } from '../common/routes.js';
import { Actions } from './actions.js';
import { BackendView } from './backend.js';
import { EventsView } from './events.js';
import { Model } from './model.js';
import { NodeView } from './node.js';
import { Overview } from './overview.js';
import { ServiceView } from './service.js';
import { VrrpView } from './vrrp.js';

/**
 * @param {import('../common/app.js').Place} place
 * @param {Actions | null} actions
 */
function view({ path, options }, actions) {
  const [id, service, backend] = path;
  switch (id) {
    case 'services':
      return backend === undefined
        ? new ServiceView(actions, service)
        : new BackendView(actions, service, backend);
    case 'vrrp':
      return new VrrpView(actions);
    case 'node':
      return new NodeView();
    case 'events':
      return new EventsView(options);
    default:
      return new Overview();
  }
}

await run({
  product: 'Tidegate',
  about: 'Balancer',
  firstAccount: 'tidegate account add NAME --role operator',
  places: [
    { id: '', label: 'Overview', href: format([]) },
    { id: 'services', label: 'Services', href: format(['services']) },
    { id: 'vrrp', label: 'VRRP and sync', short: 'VRRP', href: format(['vrrp']) },
    { id: 'node', label: 'Node', href: format(['node']) },
    { id: 'events', label: 'Events', href: format(['events']) },
  ],
  model: () => new Model(),
  orders: (session, notices) => new Actions(session, notices),
  view,
});
