import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { JUDGE, type MemoryCase } from './cases.js';
import { writeCaseModel, writeCaseRows } from './prepare.js';

const answer = z.object({ peakBytes: z.number() });

/** The largest resident set of a process that runs a stage for two steps, weights read and everything compiled. */
export async function measurePeak(asked: MemoryCase): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'duanzi-memory-'));
  try {
    await writeCaseModel(join(folder, 'model'), asked.model);
    if (asked.stage === 'grpo') await writeCaseModel(join(folder, 'reward'), JUDGE);
    await writeCaseRows(join(folder, 'data'));
    const common = [`model=${join(folder, 'model')}`, `data.dir=${join(folder, 'data')}`, `out=${join(folder, 'run')}`];
    const reward = asked.stage === 'grpo' ? [`rm=${join(folder, 'reward')}`] : [];
    const sets = [...common, ...reward, 'threads=2', ...asked.sets];
    const child = fork(
      fileURLToPath(new URL('./child.ts', import.meta.url)),
      [JSON.stringify({ stage: asked.stage, sets })],
      { env: { ...process.env, DUANZI_CACHE: join(folder, 'cache') } },
    );
    const said: unknown[] = [];
    child.on('message', (message) => said.push(message));
    const [code] = (await once(child, 'exit')) as [number | null];
    if (code !== 0) throw new Error(`${asked.name}: the process ended with ${code ?? 'a signal'}`);
    return answer.parse(said[0]).peakBytes;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
