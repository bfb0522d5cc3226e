import type { Host } from './entry.js';
import type { Listener } from './listener.js';

/** Every event as one line of JSON on stdout; a number that is not finite becomes null. */
export function jsonListener(host: Pick<Host, 'print'>): Listener {
  return {
    onEvent: (event) => {
      host.print(JSON.stringify(event));
    },
    close: () => undefined,
  };
}
