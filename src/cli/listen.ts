import type { StageContext, StageEvent } from '../runs/events.js';
import type { Host } from './entry.js';
import { jsonListener } from './json-listener.js';
import type { Listener } from './listener.js';
import type { Reporting } from './options.js';
import { progressListener } from './progress-listener.js';

/**
 * Runs `work` with whoever should hear of it: people on stderr, with `--json` machines on stdout. Without `--json`
 * stdout gets the one line that `work` resolves to.
 */
export async function listen(
  reporting: Reporting,
  host: Host,
  work: (context: StageContext) => Promise<string>,
): Promise<void> {
  const result = await listening(reporting, host, work);
  if (!reporting.json) host.print(result);
}

/** As {@link listen}, and leaves it to the caller what stdout gets beside events. */
export async function listening<Result>(
  reporting: Reporting,
  host: Host,
  work: (context: StageContext) => Promise<Result>,
): Promise<Result> {
  const listeners: Listener[] = [progressListener({ stream: host.people, quiet: reporting.quiet })];
  if (reporting.json) listeners.push(jsonListener(host));
  const onEvent = (event: StageEvent): void => {
    for (const listener of listeners) listener.onEvent(event);
  };
  try {
    return await work({ onEvent, signal: host.signal });
  } finally {
    for (const listener of listeners) listener.close();
  }
}
