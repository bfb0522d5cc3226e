import { setTimeout as sleep } from 'node:timers/promises';
import { stage } from '../../src/cli/entries.js';
import { runCli } from '../../src/cli/run-cli.js';
import { Interrupted, type StageContext } from '../../src/runs/events.js';

/** Milliseconds: long enough for any test to end first, short enough to leave no process behind. */
const LIFETIME = 60_000;
const TICK = 50;

/** Reports that it works, until it is asked to stop. */
async function wait(out: string, context: StageContext): Promise<void> {
  context.onEvent({ type: 'start', stage: 'waiting', out });
  for (let done = 0; context.signal?.aborted !== true && done < LIFETIME / TICK; done += 1) {
    context.onEvent({ type: 'progress', task: 'wait', done });
    await sleep(TICK);
  }
}

const obedient = stage('sft', 'Stops when asked to.', () =>
  Promise.resolve(async (config, context) => {
    await wait(config.out, context);
    context.onEvent({ type: 'checkpoint', step: 7, path: config.out });
    throw new Interrupted(config.out, 7);
  }),
);

const deaf = stage('grpo', 'Never stops.', () =>
  Promise.resolve(async (config, context) => {
    await wait(config.out, context);
    await sleep(LIFETIME);
    return config.out;
  }),
);

const broken = stage('rm', 'Has a bug.', () =>
  Promise.resolve(() => {
    throw new TypeError('this is no function');
  }),
);

process.exit(await runCli(process.argv.slice(2), [obedient, deaf, broken]));
