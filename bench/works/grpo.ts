import { grpoSection } from '../../src/config/grpo.js';
import { loadConfig } from '../../src/config/load.js';
import { Decoder, type Completion } from '../../src/generation/decoder.js';
import { openPolicy, writingModel } from '../../src/generation/policy.js';
import { Scorer } from '../../src/generation/scorer.js';
import { zeros, type Tensor } from '../../src/graph/tensor.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { learnedTokens } from '../../src/stages/grpo/batch.js';
import { grpoGraph } from '../../src/stages/grpo/graph.js';
import { lossSettings } from '../../src/stages/grpo/loss-settings.js';
import { Rewards } from '../../src/stages/grpo/rewards.js';
import { rollOut, type RolloutTools } from '../../src/stages/grpo/rollout.js';
import { grpoStep } from '../../src/stages/grpo/step.js';
import { CopyIndex } from '../../src/text/copy-index.js';
import { Learner } from '../../src/training/learner.js';
import { freshAdapter } from '../adapter.js';
import { rolloutPrompts } from '../batches.js';
import { costOf } from '../cost.js';
import { timed, type Setup, type Work } from '../work.js';

/** As the stage takes it by default, but for how many completions go through the model at once, which changes memory alone. */
const FULL = { microBatchSize: 4 };
/** Small enough to see that everything works. */
const QUICK = { numGenerations: 2, batchSize: 2, completionsPerRollout: 4, maxCompletionLength: 6 };

/** A rollout of GRPO with natural ends, rewarded and scored, and all optimizer steps that learn from it. */
export async function grpo(setup: Setup): Promise<Work> {
  const { quantization, model, rm, csv } = setup;
  const flags = Object.entries(setup.quick ? QUICK : FULL).map(([name, value]) => [`grpo.${name}`, value] as const);
  const form = quantization === 'int4' ? 'int8' : quantization;
  const precision = form === 'int8' ? 'int8' : 'float32';
  const config = await loadConfig({
    stage: 'grpo',
    flags: {
      ...{ model, rm, 'data.file': csv, quantization: form, 'grpo.samplerQuantization': quantization },
      'grpo.rewards.model.precision': precision,
      ...Object.fromEntries(flags),
    },
  });
  const section = grpoSection.parse(config.grpo);
  const policy = await openPolicy(model, undefined, { quantization: form });
  const runtime = new Runtime({ threads: setup.threads });
  const { lora, tensors } = freshAdapter(policy);
  const loss = lossSettings(section);
  const training = grpoGraph(policy.config, lora, { ...loss, temperature: section.temperature, quantization: form });
  const learner = await Learner.create(runtime, {
    graph: training.context.graph,
    loss: training.loss,
    trainable: training.context.loraWeights,
    initial: tensors,
    frozen: policy.model.weights,
    adamw: section,
  });
  const sampler = await writingModel(await openPolicy(model, undefined, { quantization }), runtime.device);
  const rewards = await Rewards.open(runtime, config, new CopyIndex([]), () => undefined);
  const decoder = await Decoder.create(runtime, { ...sampler, lora });
  let writing = 0;
  const tools: RolloutTools = {
    policy,
    decoder: {
      generate: async (...given) => {
        const completions: Completion[] = [];
        writing += await timed(async () => completions.push(...(await decoder.generate(...given))));
        return completions;
      },
    },
    scorer: await Scorer.create(runtime, { ...policy.model, lora }),
    reward: (rows) => rewards.score(rows, { groupSize: section.numGenerations, learn: true }),
    adapter: learner.weights,
    reference: Object.fromEntries(
      [...tensors].map(([name, { shape }]): [string, Tensor] => [name, zeros('float32', shape)]),
    ),
  };
  const perRollout = section.completionsPerRollout / section.numGenerations;
  const prompts = await rolloutPrompts(setup);
  const steps = section.completionsPerRollout / section.batchSize;
  const cost = costOf(policy.folder);
  let number = 0;
  return {
    description: `${cost.description}, ${section.completionsPerRollout} completions of ≤ ${section.maxCompletionLength} tokens, ${steps} steps of ${section.batchSize}`,
    once: async () => {
      const chosen = Array.from({ length: perRollout }, (_, i) => prompts[(number * perRollout + i) % prompts.length]!);
      let [written, read] = [0, 0];
      writing = 0;
      const seconds = await timed(async () => {
        const rollout = await rollOut(chosen, number, tools, config);
        const order = stream(0, 'mix', number).shuffle(rollout.samples.length);
        const samples = Array.from(order, (at) => rollout.samples[at]!);
        for (let step = 0; step < steps; step++) {
          const batch = samples.slice(step * section.batchSize, (step + 1) * section.batchSize);
          await grpoStep(learner, [batch], section.learningRate, {
            loss,
            scale: {
              maxCompletionLength: section.maxCompletionLength,
              rolloutTokens: samples.reduce((total, sample) => total + learnedTokens(sample), 0),
              rolloutBatches: steps,
            },
            entropyCoef: 0,
            microBatchSize: section.microBatchSize,
          });
        }
        written = rollout.records.reduce((total, { tokens }) => total + tokens, 0);
        read = rollout.tokens;
      });
      number++;
      // Written and read once more by the reference; forward and backward to the activations. The reward model not counted.
      const [layers, head] = [cost.layerWeights - cost.afterAttention, cost.headWeights + cost.afterAttention];
      const flops = 2 * (layers + head) * written + 6 * (layers * read + head * written);
      const amounts = { 'generated tokens': written, completions: section.completionsPerRollout };
      return { seconds, flops, amounts, parts: { rollout: writing } };
    },
  };
}
