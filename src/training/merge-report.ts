import path from 'node:path';
import { mergeAdapter, mergedBytes, type MergeOptions } from '../checkpoints/merge.js';
import { isFloat } from '../checkpoints/stored-dtype.js';
import { UserError } from '../errors.js';
import { inferenceOptions } from '../generation/decoder.js';
import { openPolicy, type Policy } from '../generation/policy.js';
import { causalHidden, causalLogits } from '../models/causal.js';
import { packedFeeds, packedTokens } from '../models/packed-tokens.js';
import { ModelContext, type ContextOptions } from '../nn/context.js';
import { newGraph } from '../ops/registry.js';
import { stream } from '../random.js';
import { writeFileAtomic, writeFolderAtomic } from '../runs/atomic.js';
import { requireSpace } from '../runs/disk-space.js';
import type { Runtime } from '../runtime/runtime.js';

/** How far a merged model is from model and adapter apart, on a fixed random text. */
export interface MergeReport {
  readonly form: 'float32' | '16 bits' | '4 bits';
  readonly largestLogitDifference: number;
  /** Of all positions, KL(apart ‖ merged) of the next token, in nats. */
  readonly meanKl: number;
  /** Positions compared. */
  readonly tokens: number;
}

/**
 * The most that a merge may differ. In float32 only the order of additions differs, so the largest logit difference is
 * bounded, relative to the largest logit where that is above 1. Rounded weights give other logits by their nature: there
 * the mean KL is bounded, in nats.
 */
export const mergeBounds = { float32: 1e-4, '16 bits': 0.05, '4 bits': 0.5 } as const;

/** Tokens of the text on which both models are compared. */
const PROBE_LENGTH = 48;

/**
 * Merges an adapter into its model and compares the merged model with the two: what they give is reported and written to
 * `merge.json` beside the weights.
 *
 * @param request.maxMeanKl another bound than `mergeBounds` on the mean KL of a merge into 16 or 4 bits, in nats
 * @throws UserError when the merged model differs by more; then nothing is left at `out`
 */
export async function mergeAndCompare(
  runtime: Runtime,
  request: Pick<MergeOptions, 'dtype' | 'quantization'> & {
    readonly model: string;
    readonly adapter: string;
    readonly out: string;
    readonly maxMeanKl?: number;
  },
): Promise<MergeReport> {
  const { model, adapter, out, maxMeanKl, ...options } = request;
  let report: MergeReport | undefined;
  await requireSpace(out, await mergedBytes(model, adapter, options), {
    code: 'merge.no-space',
    what: 'The merged model',
    fix: 'Free some space, or choose a folder on another disk, then run again with --resume.',
  });
  await writeFolderAtomic(out, async (folder) => {
    await mergeAdapter(model, adapter, folder, options);
    const apart = await openPolicy(model, adapter);
    const merged = await openPolicy(folder);
    const [before, after] = [await probe(runtime, apart), await probe(runtime, merged)];
    const width = merged.config.vocabSize;
    report = compareMerged({ form: formOf(merged), apart: before, merged: after, width, maxMeanKl, out });
    await writeFileAtomic(
      path.join(folder, 'merge.json'),
      `${JSON.stringify({ model, adapter, ...report }, null, 2)}\n`,
    );
  });
  return report!;
}

function formOf({ folder }: Policy): MergeReport['form'] {
  if (folder.quantized.size > 0) return '4 bits';
  const isNarrow = [...folder.weights.values()].some(
    ({ dtype }) => isFloat(dtype) && dtype !== 'F32' && dtype !== 'F64',
  );
  return isNarrow ? '16 bits' : 'float32';
}

/**
 * How far the logits of a merged model are from those of model and adapter apart, both (positions) × (width).
 *
 * @throws UserError where they differ by more than `mergeBounds` allow
 */
export function compareMerged(compared: {
  readonly form: MergeReport['form'];
  readonly apart: Float32Array;
  readonly merged: Float32Array;
  readonly width: number;
  readonly maxMeanKl?: number | undefined;
  /** The merged model, for the error. */
  readonly out: string;
}): MergeReport {
  const { form, apart, merged, width, maxMeanKl, out } = compared;
  const report = { form, ...logitDistance(apart, merged, width) };
  requireClose(report, apart, maxMeanKl, out);
  return report;
}

/** How far logits are from those before, both (positions) × (width). */
export function logitDistance(
  before: Float32Array,
  after: Float32Array,
  width: number,
): Pick<MergeReport, 'largestLogitDifference' | 'meanKl' | 'tokens'> {
  const tokens = before.length / width;
  let kl = 0;
  for (let start = 0; start < before.length; start += width) {
    const [p, q] = [before, after].map((logits) => logProbabilities(logits.subarray(start, start + width)));
    p!.forEach((logP, i) => (kl += Math.exp(logP) * (logP - q![i]!)));
  }
  const difference = before.reduce((largest, value, i) => Math.max(largest, Math.abs(value - after[i]!)), 0);
  // The differences of two floats of one value may sum to a little below zero.
  return { largestLogitDifference: difference, meanKl: Math.max(0, kl / tokens), tokens };
}

function logProbabilities(logits: Float32Array): Float64Array {
  const largest = logits.reduce((most, value) => Math.max(most, value), -Infinity);
  const total = logits.reduce((sum, value) => sum + Math.exp(value - largest), 0);
  const logTotal = largest + Math.log(total);
  return Float64Array.from(logits, (value) => value - logTotal);
}

function requireClose(report: MergeReport, logits: Float32Array, maxMeanKl: number | undefined, out: string): void {
  const { form, largestLogitDifference: difference, meanKl } = report;
  const scale = logits.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
  const [found, bound, what] =
    form === 'float32'
      ? [difference, mergeBounds.float32 * scale, 'in a logit']
      : [meanKl, maxMeanKl ?? mergeBounds[form], 'nats of mean KL'];
  if (found <= bound) return;
  throw new UserError({
    code: 'merge.differs',
    message: `Merged in ${form}, the model differs by ${found.toPrecision(3)} ${what} from model and adapter apart; at most ${bound.toPrecision(3)} is taken for the same.`,
    where: out,
    fix:
      form === 'float32'
        ? 'Check that the adapter was trained on this model.'
        : 'Merge in float32, which rounds nothing, or leave the adapter apart.',
  });
}

/** The logits of a fixed random text. Matrices are read from their files piece by piece: a whole model need not fit. */
async function probe(runtime: Runtime, policy: Policy): Promise<Float32Array> {
  const random = stream(0, 'merge probe');
  const ids = Array.from({ length: PROBE_LENGTH }, () => random.integer(policy.config.vocabSize));
  return allLogits(runtime, policy, [ids], { streamed: true });
}

/** The logits of every token of sequences, (tokens) × (vocabSize). */
export async function allLogits(
  runtime: Runtime,
  { config, model, adapter }: Pick<Policy, 'config' | 'model' | 'adapter'>,
  sequences: readonly (readonly number[])[],
  { streamed }: Pick<ContextOptions, 'streamed'> = {},
): Promise<Float32Array> {
  const context = new ModelContext(newGraph(), { ...inferenceOptions(model), streamed });
  const { hidden } = causalHidden(context, config, packedTokens(context));
  context.graph.output('logits', causalLogits(context, config, hidden));
  const program = await runtime.compile(context.graph, model.weights);
  const { logits } = await program.run({ ...packedFeeds(sequences), ...adapter });
  await program.dispose();
  return logits!.data as Float32Array;
}
