// The daemon's labels in words. A label that is not here is shown as it is, with spaces: a page may be
// older than the daemon for as long as it is open.

/** Why a router's role changed. */
const CAUSES = {
  startup: 'it was started',
  owner: 'it was started, and owns the addresses',
  adopted: 'the process before this one had the role',
  silence: 'the Active was not heard any more',
  peer_released: 'the Active gave its role up',
  preemption: 'the Active has a lower priority',
  higher_priority: 'another Active has a higher priority',
  higher_address: 'another Active has the same priority and a higher address',
  operator: 'an operator asked for it',
  fault: 'this node cannot forward',
  group: 'another router of its group changed',
  shutdown: 'it was shut down',
};

/** What keeps a router back. */
const HINDRANCES = {
  not_ready: 'the tables cannot be kept right',
  link_down: 'the interface is down',
  no_address: 'the interface has no address to speak from',
  no_socket: 'adverts cannot be sent',
  unfit: 'it cannot be set up',
  no_backends: 'no service of its addresses has a healthy backend',
  no_vip: 'the kernel refuses its address',
  tracked: 'something that it depends on is down',
  silent_backends: 'no backend answers',
  unseen_backends: 'not all backends were found up or down yet',
  operator: 'an operator has released it',
  group: 'another router of its group is held',
};

const ROLES = { initialize: 'Stopped', backup: 'Backup', active: 'Active' };

/** How packets end: what stands for each verdict. */
const VERDICTS = {
  pass_not_ours: 'not for a service, left to the host',
  pass_malformed: 'too damaged to say whose, left to the host',
  tx_dsr: 'to a backend, by MAC address',
  redirect_dsr: 'to a backend, by MAC address, other interface',
  tx_nat: 'to a backend, translated',
  redirect_nat: 'to a backend, translated, other interface',
  tx_nat_reply: 'to a client, translated back',
  redirect_nat_reply: 'to a client, translated back, other interface',
  tx_tunnel: 'to a backend, through its tunnel',
  redirect_tunnel: 'to a backend, through its tunnel, other interface',
  tx_icmp: 'ICMP error, to the backend of its flow',
  redirect_icmp: 'ICMP error, to the backend, other interface',
  tx_icmp_reply: 'ICMP error, to the client of its flow',
  redirect_icmp_reply: 'ICMP error, to the client, other interface',
  tx_too_big: 'too large for the way, answered',
  tx_time_exceeded: 'had no hop left, answered',
  tx_challenge: 'SYN answered with a challenge',
  tx_neighbour: 'asked for a virtual MAC address, answered',
  tx_echo: 'ping of a virtual address, answered',
  drop_malformed: 'a header contradicts itself or the frame',
  drop_fragment: 'fragment whose first piece was not seen',
  drop_ttl_expired: 'hop limit ran out',
  drop_no_backend: 'no backend takes it',
  drop_no_next_hop: "the backend's MAC address is not known",
  drop_nat_no_source: 'NAT has no source address of that family',
  drop_nat_ports_exhausted: 'NAT has no free port to the backend',
  drop_flow_table_full: 'no room to record the flow',
  drop_nat_unknown_flow: 'belongs to no flow, and starts none',
  drop_too_big: 'too large for the way, not to be answered',
  drop_tunnel_no_source: 'the tunnel has no source address of that family',
  drop_backends_full: 'every backend has as many flows as it may',
  drop_denied: 'the access list denies the client',
  drop_service_rate: 'more new connections than the service takes',
  drop_source_rate: 'more new connections than one source may start',
  drop_not_mqtt: 'the first data is no MQTT CONNECT',
  drop_challenge_answered: 'good answer to a challenge, may connect now',
  drop_icmp_unknown_flow: 'ICMP error about a flow that is not known',
  drop_not_active: 'asks for an address that is not Active here',
  drop_internal: 'a state that should not be: please report',
};

/**
 * @param {Record<string, string>} words
 * @returns {(label: string) => string}
 */
function wordsOf(words) {
  return (label) => (Object.hasOwn(words, label) ? words[label] : label.replaceAll('_', ' '));
}

export const cause = wordsOf(CAUSES);
export const hindrance = wordsOf(HINDRANCES);
export const role = wordsOf(ROLES);
export const verdict = wordsOf(VERDICTS);

/** The known verdicts, for a test. */
export const VERDICT_LABELS = Object.keys(VERDICTS);
