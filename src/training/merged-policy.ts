import { stat } from 'node:fs/promises';
import path from 'node:path';
import { mergeAdapter } from '../checkpoints/merge.js';
import { inferenceOptions } from '../generation/decoder.js';
import { openPolicy, type Policy } from '../generation/policy.js';
import { wrap } from '../graph/tensor.js';
import { causalInputs, causalHidden, causalLogits } from '../models/causal.js';
import { ModelContext } from '../nn/context.js';
import { flattenRows } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { stream } from '../random.js';
import { writeFileAtomic, writeFolderAtomic } from '../runs/atomic.js';
import type { Runtime } from '../runtime/runtime.js';

/** Two float32 roundings of the same sums differ far less; a wrong merge differs far more. */
const LARGEST_DIFFERENCE = 1e-2;

/** Tokens of the text on which both models are compared. */
const PROBE_LENGTH = 48;

/**
 * Merges an adapter into its model, in float32, and checks that the merged model computes what the two did: the largest
 * difference of their logits on a probe is written to `merge.json` beside the weights. A run merges into its own folder,
 * so no merge outlives what it was made from.
 *
 * @returns the folder of the merged model
 */
export async function mergedPolicy(
  runtime: Runtime,
  { model, adapter, out }: { model: string; adapter: string; out: string },
): Promise<string> {
  const before = await openPolicy(model, adapter);
  const made = await stat(path.join(out, 'merge.json')).catch(() => undefined);
  if (made !== undefined) return out;
  await writeFolderAtomic(out, async (folder) => {
    await mergeAdapter(model, adapter, folder, { dtype: 'float32' });
    const difference = largestDifference(await probe(runtime, before), await probe(runtime, await openPolicy(folder)));
    if (!(difference <= LARGEST_DIFFERENCE)) {
      throw new Error(`the merged model's logits differ by up to ${difference} from those of model and adapter`);
    }
    await writeFileAtomic(
      path.join(folder, 'merge.json'),
      `${JSON.stringify({ model, adapter, largestLogitDifference: difference })}\n`,
    );
  });
  return out;
}

/** The logits of a fixed random text. */
async function probe(runtime: Runtime, { config, model, adapter }: Policy): Promise<Float32Array> {
  const context = new ModelContext(newGraph(), inferenceOptions(model));
  const { hidden } = causalHidden(context, config, causalInputs(context));
  context.graph.output('logits', causalLogits(context, config, flattenRows(hidden)));
  const program = await runtime.compile(context.graph, model.weights);
  const random = stream(0, 'merge probe');
  const shape = [1, PROBE_LENGTH];
  const { logits } = await program.run({
    input_ids: wrap(
      'int32',
      shape,
      Int32Array.from({ length: PROBE_LENGTH }, () => random.integer(config.vocabSize)),
    ),
    attention_mask: wrap('int32', shape, new Int32Array(PROBE_LENGTH).fill(1)),
    position_ids: wrap(
      'int32',
      shape,
      Int32Array.from({ length: PROBE_LENGTH }, (_, at) => at),
    ),
    ...adapter,
  });
  await program.dispose();
  return logits!.data as Float32Array;
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0);
}
