import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Bytes of the process without what only waits to be collected. */
export function residentBytes(): number {
  collectGarbage();
  return process.memoryUsage().rss;
}
