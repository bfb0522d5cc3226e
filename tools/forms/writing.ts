/**
 * `npm run forms:writing -- FILE [MODEL]`: how far the next-token distributions of each form for writing are from float32's on
 * the jokes of a CSV: mean KL in nats, and the loss. MODEL is a causal model's folder, by default the shipped one.
 */
import { inferenceOptions } from '../../src/generation/decoder.js';
import { openPolicy } from '../../src/generation/policy.js';
import { readRows } from '../../src/data/read.js';
import { causalHidden, causalLogits } from '../../src/models/causal.js';
import { packedFeeds, packedTokens } from '../../src/models/packed-tokens.js';
import { ModelContext, type Quantization } from '../../src/nn/context.js';
import { newGraph } from '../../src/ops/registry.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { compareMerged } from '../../src/training/merge-report.js';
import { loadTokenizer } from '../../src/text/load-tokenizer.js';

const [file, model = 'assets/nano-qwen3'] = process.argv.slice(2);
if (file === undefined) throw new Error('npm run forms:writing -- FILE [MODEL]');
const TEXTS = 100;

const tokenizer = await loadTokenizer(model);
const { rows } = await readRows(file);
const sequences = rows.slice(0, TEXTS).map(({ fields }) => tokenizer.encode(fields['joke']!, { maxLength: 128 }));
const runtime = new Runtime({ threads: 1 });

async function logitsOf(quantization: Quantization): Promise<{ logits: Float32Array; width: number }> {
  const { config, model: base } = await openPolicy(model, undefined, { quantization });
  const context = new ModelContext(newGraph(), inferenceOptions(base));
  const { hidden } = causalHidden(context, config, packedTokens(context));
  context.graph.output('logits', causalLogits(context, config, hidden));
  const program = await runtime.compile(context.graph, base.weights);
  const { logits } = await program.run(packedFeeds(sequences));
  await program.dispose();
  return { logits: logits!.data as Float32Array, width: config.vocabSize };
}

const exact = await logitsOf('float32');
console.log('| form | mean KL from float32, nats | largest logit difference |\n|---|---|---|');
for (const form of ['int8', 'bytes', 'nf4', 'int4'] as const) {
  const { logits: merged, width } = await logitsOf(form);
  const report = compareMerged({ form: '4 bits', apart: exact.logits, merged, width, maxMeanKl: Infinity, out: form });
  console.log(`| ${form} | ${report.meanKl.toFixed(4)} | ${report.largestLogitDifference.toFixed(3)} |`);
}
await runtime.close();
