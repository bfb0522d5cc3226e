/** The process of one work: memory is counted by process, and a pause between two repetitions costs nothing here. */
import { failureOf } from '../src/cli/report-error.js';
import type { Answer, Order } from './messages.js';
import type { Work } from './work.js';
import { works } from './works/index.js';

let work: Work | undefined;

async function obey(order: Order): Promise<Answer> {
  if (order.kind === 'open') {
    work = await works[order.work](order.setup);
    return { kind: 'ready', description: work.description };
  }
  if (work === undefined) throw new Error('the work was not opened');
  const before = process.cpuUsage();
  const measurement = await work.once();
  const { user, system } = process.cpuUsage(before);
  // Microseconds, and kibibytes on every system.
  const used = { cpuSeconds: (user + system) / 1e6, peakBytes: process.resourceUsage().maxRSS * 1024 };
  return { kind: 'measured', measurement: { ...measurement, ...used } };
}

process.on('message', (order: Order) => {
  void obey(order)
    .catch((error: unknown): Answer => ({ kind: 'failed', failure: failureOf(error, new AbortController().signal) }))
    .then((answer) => process.send!(answer));
});
