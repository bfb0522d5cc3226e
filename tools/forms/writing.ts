/**
 * `npm run forms:writing -- FILE [MODEL]`: how far the next-token distributions of each form for writing are from float32's on
 * jokes of a CSV: mean KL in nats, and the largest difference of a logit. MODEL is a causal model's folder, by default the
 * shipped one.
 */
import { readRows } from '../../src/data/read.js';
import { openPolicy } from '../../src/generation/policy.js';
import type { Quantization } from '../../src/nn/context.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { loadTokenizer } from '../../src/text/load-tokenizer.js';
import { allLogits, logitDistance } from '../../src/training/merge-report.js';

const [file, model = 'assets/nano-qwen3'] = process.argv.slice(2);
if (file === undefined) throw new Error('npm run forms:writing -- FILE [MODEL]');
const TEXTS = 100;

const tokenizer = await loadTokenizer(model);
const { rows } = await readRows(file);
const sequences = rows.slice(0, TEXTS).map(({ fields }) => tokenizer.encode(fields['joke']!, { maxLength: 128 }));
const runtime = new Runtime({ threads: 1 });
const logitsIn = async (quantization: Quantization): Promise<Float32Array> =>
  allLogits(runtime, await openPolicy(model, undefined, { quantization }), sequences);

const exact = await logitsIn('float32');
const width = exact.length / sequences.reduce((sum, { length }) => sum + length, 0);
console.log('| form | mean KL from float32, nats | largest logit difference |\n|---|---|---|');
for (const form of ['int8', 'bytes', 'nf4', 'int4'] as const) {
  const { meanKl, largestLogitDifference } = logitDistance(exact, await logitsIn(form), width);
  console.log(`| ${form} | ${meanKl.toFixed(4)} | ${largestLogitDifference.toFixed(3)} |`);
}
await runtime.close();
