import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { trainer } from '../../src/cli/entries.js';
import { runCli } from '../../src/cli/run-cli.js';
import { LOCK_FILE } from '../../src/runs/lock.js';
import { openRunFolder } from '../../src/runs/run-folder.js';

/**
 * A stage that opens its run folder and is killed until it goes on with fewer samples at once
 * than `threads`. With a seed of 1,000 and more the system is not to blame for it.
 */
const dying = trainer('sft', 'Is killed.', () =>
  Promise.resolve(async (config, context) => {
    const { out, seed, threads } = config;
    const run = await openRunFolder({
      ...{ out, seed, stage: 'sft', config: {}, device: 'cpu', resume: config.resume, fingerprints: {} },
      batchSize: 8,
      onEvent: context.onEvent.bind(context),
    });
    if (run.microBatch(8) >= threads) {
      const path = join(out, LOCK_FILE);
      const holder = JSON.parse(readFileSync(path, 'utf8')) as { memoryKills: number };
      // As if it had been taken before the system killed its first process.
      if (seed < 1000) writeFileSync(path, JSON.stringify({ ...holder, memoryKills: holder.memoryKills - 1 }));
      process.kill(process.pid, 'SIGKILL');
    }
    await run.finish();
    return out;
  }),
);

process.exit(await runCli(process.argv.slice(2), [dying]));
