/**
 * `npm run memory [-- WORDS]`: the peak memory of stages beside what is planned for them, as the table of docs/memory.md;
 * with words only the cases whose names hold them. Takes minutes, and as much memory as the largest case.
 */
import { loadConfig } from '../../src/config/index.js';
import type { MemoryPlan } from '../../src/memory/plan.js';
import { grpoMemory } from '../../src/stages/grpo/memory.js';
import { rmMemory } from '../../src/stages/rm/memory.js';
import { sftMemory } from '../../src/stages/sft/memory.js';
import { CASES, JUDGE, type MemoryCase } from './cases.js';
import { measurePeak } from './measure.js';

async function planned({ stage, model, sets: given }: MemoryCase): Promise<MemoryPlan> {
  const sets = ['model=model', 'data.dir=data', ...given];
  if (stage === 'rm') return rmMemory(model, await loadConfig({ stage, sets }));
  if (model.kind !== 'causal') throw new Error(`${stage} takes a causal model`);
  if (stage === 'sft') return sftMemory(model, await loadConfig({ stage, sets }));
  return grpoMemory(model, await loadConfig({ stage, sets: [...sets, 'rm=reward'] }), JUDGE);
}

const mebibytes = (bytes: number): string => Math.round(bytes / 2 ** 20).toLocaleString('en');

const words = process.argv.slice(2);
console.log('| case | planned, MiB | measured, MiB | planned / measured |\n|---|---|---|---|');
for (const each of CASES) {
  if (!words.every((word) => each.name.includes(word))) continue;
  const plan = await planned(each);
  const measured = await measurePeak(each);
  const ratio = (plan.bytes / measured).toFixed(2);
  console.log(`| ${each.name} | ${mebibytes(plan.bytes)} | ${mebibytes(measured)} | ${ratio} |`);
}
