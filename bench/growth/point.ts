/** A process of its own for each curve's point, so that its peak memory is its alone; all steps are one process. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Decoder } from '../../src/generation/decoder.js';
import { openPolicy, type Policy } from '../../src/generation/policy.js';
import { unfiltered } from '../../src/generation/sampling-settings.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { sftStep } from '../../src/stages/sft.js';
import type { MaskedSequence } from '../../src/models/packed-tokens.js';
import { packedDropoutFeeds } from '../../src/training/dropout.js';
import { causalGraph } from '../../src/training/language.js';
import { Learner } from '../../src/training/learner.js';
import { freshAdapter } from '../adapter.js';
import { writeRandom } from '../random-models.js';
import { spreadOf } from '../statistics.js';
import { timed } from '../work.js';
import type { GrowthPoint } from './growth.js';
import { BASE, policyOf, type Axis } from './plan.js';
import { residentBytes } from './resident-bytes.js';

export interface PointOrder {
  readonly axis: Axis;
  /** One value, or for `steps` all of them. */
  readonly values: readonly number[];
  readonly threads: number;
}

/** Repetitions that count, after one that does not. */
const REPETITIONS = 3;

const ids = (length: number, row: number): number[] => {
  const random = stream(0, 'growth', row);
  return Array.from({ length }, () => random.integer(2000));
};

function samples(batch: number, length: number, prompt: number): MaskedSequence[] {
  return Array.from({ length: batch }, (_, row) => ({
    inputIds: ids(length, row),
    completionMask: Array.from({ length }, (_unused, at): 0 | 1 => (at < prompt ? 0 : 1)),
  }));
}

async function learn(
  policy: Policy,
  runtime: Runtime,
): Promise<(batch: readonly MaskedSequence[], step: number) => Promise<unknown>> {
  const { lora, tensors } = freshAdapter(policy);
  const training = causalGraph(policy.config, { lora, training: true, statistics: true });
  const learner = await Learner.create(runtime, {
    graph: training.graph,
    loss: training.loss,
    trainable: training.context.loraWeights,
    initial: tensors,
    frozen: policy.model.weights,
    adamw: { weightDecay: 0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, maxGradNorm: 1 },
  });
  return (batch, step) => {
    const items = batch.map((sample, row) => ({ row, sequences: [sample] }));
    return sftStep(learner, [batch], 1e-4, [packedDropoutFeeds(0, step, items)]);
  };
}

/** Writes the completions of a group. */
async function writer(policy: Policy, runtime: Runtime, group: number): Promise<(step: number) => Promise<unknown>> {
  const { lora, tensors } = freshAdapter(policy);
  const decoder = await Decoder.create(runtime, { ...policy.model, lora });
  const adapter = Object.fromEntries(
    await Promise.all([...tensors].map(async ([name, tensor]) => [name, await runtime.upload(tensor)] as const)),
  );
  const prompts = Array.from({ length: group }, () => ids(BASE.promptLength, 0));
  return (step) =>
    decoder.generate(prompts, {
      eosTokenIds: new Set(),
      padTokenId: policy.padTokenId,
      maxNewTokens: BASE.newTokens,
      sampling: { ...unfiltered, temperature: 0.8, topP: 0.95 },
      batchSize: group,
      random: (prompt) => stream(0, 'growth', step, prompt),
      adapter,
    });
}

async function measure({ axis, values, threads }: PointOrder, dir: string): Promise<GrowthPoint[]> {
  const value = values[0]!;
  const config = policyOf(axis === 'layers' ? value : BASE.layers);
  await writeRandom(dir, config, causalGraph(config, {}).context.weights);
  const policy = await openPolicy(dir);
  const runtime = new Runtime({ threads });
  const step = await learn(policy, runtime);
  const points: GrowthPoint[] = [];
  if (axis === 'steps') {
    const batch = samples(BASE.batch, BASE.length, BASE.length / 2);
    const seconds: number[] = [];
    for (let i = 1; i <= values.at(-1)!; i++) {
      seconds.push(await timed(() => step(batch, i)));
      if (!values.includes(i)) continue;
      points.push({ axis, value: i, seconds: spreadOf(seconds.splice(0)).median, bytes: residentBytes() });
    }
  } else {
    const group = axis === 'group';
    const length = group ? BASE.promptLength + BASE.newTokens : axis === 'length' ? value : BASE.length;
    const batch = samples(group ? value : BASE.batch, length, group ? BASE.promptLength : Math.floor(length / 2));
    const write = group ? await writer(policy, runtime, value) : undefined;
    const seconds: number[] = [];
    for (let i = 0; i <= REPETITIONS; i++) {
      const taken = await timed(async () => {
        await write?.(i);
        await step(batch, i);
      });
      if (i > 0) seconds.push(taken);
    }
    const bytes = process.resourceUsage().maxRSS * 1024;
    points.push({ axis, value, seconds: spreadOf(seconds).median, bytes });
  }
  await runtime.close();
  return points;
}

process.once('message', (order: PointOrder) => {
  void (async () => {
    const dir = await mkdtemp(join(tmpdir(), 'duanzi-growth-'));
    try {
      process.send!(await measure(order, dir));
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
    process.disconnect();
  })();
});
