/** The thread's side of a reward that a user wrote: bundled together with the user's file, runs beside it. */
import { parentPort } from 'node:worker_threads';
import type { Reward } from '../reward.js';
import { checkScores } from './check-scores.js';
import type { Answer, Question, Thrown } from './protocol.js';

/** Answers batches with what the default export of `module` makes of them. */
export function serve(module: { readonly default?: unknown }): void {
  const port = parentPort;
  if (port === null) throw new Error('this runs in a worker thread');
  const say = (answer: Answer): void => {
    port.postMessage(answer);
  };
  const reward = module.default;
  if (!isReward(reward)) {
    say({
      kind: 'ready',
      fault: reward === undefined ? 'has no default export' : 'has a default export that is no function',
    });
    return;
  }
  let last = Promise.resolve();
  port.on('message', ({ id, rows }: Question) => {
    last = last.then(async () => {
      try {
        const checked = checkScores(await reward(rows), rows.length);
        say('fault' in checked ? { kind: 'fault', id, ...checked } : { kind: 'scores', id, ...checked });
      } catch (error) {
        say({ kind: 'thrown', id, thrown: asThrown(error) });
      }
    });
  });
  say({ kind: 'ready' });
}

const isReward = (value: unknown): value is Reward => typeof value === 'function';

const asThrown = (error: unknown): Thrown =>
  error instanceof Error
    ? { name: error.name, message: error.message, stack: error.stack ?? '' }
    : { name: 'A value', message: String(error), stack: '' };
