import type { Graph, Value } from '../graph/graph.js';
import { CACHE_STEP, decoderGraph, PROMPT_TOKENS, type CausalModel } from '../generation/decoder.js';
import { classifierContext, sequencesAtOnce } from '../rewards/classifier.js';
import type { ModelConfig } from '../models/config/model-config.js';
import { packedSizes } from '../models/packed-tokens.js';
import { adamwGraph, gradNormGraph } from '../optim/adamw.js';
import { piecesOf } from '../optim/pieces.js';
import type { MemoryPart } from './plan.js';
import { inferenceSession, type SessionBytes } from './session.js';
import { sharedBytes, totalBytes } from './weights.js';

/** A model of which only the shape is known. */
export type ShapedModel = Omit<CausalModel, 'weights'>;

/** The two parts of a session. */
export const sessionParts = (session: string, { weights, activations }: SessionBytes): MemoryPart[] => [
  { name: `weights of the base for ${session}`, bytes: weights },
  { name: `activations of ${session}`, bytes: activations },
];

/**
 * The file of a base in 8 bits, which has both directions of each matrix: it is mapped, and what was read of it stays resident as long as there is room.
 *
 * @param session one that multiplies by each matrix in one direction
 */
export const mappedPart = (
  { quantization }: Pick<ShapedModel, 'quantization'>,
  { weights }: SessionBytes,
): MemoryPart => ({
  name: 'the file of the rounded weights',
  bytes: quantization === 'int8' ? 2 * weights : 0,
});

/** The codes and scales of a base in NF4: one copy for all sessions. */
export const sharedPart = (graph: Graph): MemoryPart => ({
  name: 'weights of the base in NF4, for all sessions',
  bytes: sharedBytes(graph),
});

/** What the parameters that learn take: weights, two moments of AdamW, and gradients, which micro-batches add to in place. */
export function learnerParts(trainable: ReadonlyMap<string, Value>): MemoryPart[] {
  const bytes = totalBytes(trainable.values());
  const parameters = Array.from(trainable, ([name, { shape }]) => {
    return { name, shape: shape as readonly number[], decay: true };
  });
  const pieces = piecesOf(parameters);
  const update = adamwGraph(pieces, { weightDecay: 0.01, maxGradNorm: 1 });
  const sessions = [
    inferenceSession(update, [{}], { written: new Set(update.outputs.values()) }),
    inferenceSession(gradNormGraph(pieces), [{}]),
  ];
  return [
    { name: 'what an update computes', bytes: sessions.reduce((sum, { activations }) => sum + activations, 0) },
    { name: 'weights that learn, their gradients and moments', bytes: 4 * bytes },
  ];
}

/** Texts that are written together: so many at once, of so many prompts, each so long. */
export interface Writing {
  readonly rows: number;
  readonly prompts: number;
  readonly promptLength: number;
  readonly newTokens: number;
}

/** What decoding takes: its own packed weights, the cache of keys and values, the probabilities of one position's tokens. */
export function writingParts(model: ShapedModel, { rows, prompts, promptLength, newTokens }: Writing): MemoryPart[] {
  const { config } = model;
  const graph = decoderGraph(model);
  const roundUp = (length: number): number => Math.ceil(length / CACHE_STEP) * CACHE_STEP;
  const capacity = roundUp(promptLength + newTokens);
  const perPass = Math.max(1, Math.min(prompts, Math.floor(PROMPT_TOKENS / promptLength)));
  const written = new Set(
    [...graph.outputs].filter(([name]) => /^(fresh_|probabilities$)/.test(name)).map(([, v]) => v),
  );
  const session = inferenceSession(
    graph,
    [
      { B: perPass, T: promptLength, M: 1 },
      { B: rows, T: 1, M: capacity },
    ],
    { fed: adapterNames(graph), written, stored: config.dtype },
  );
  const perToken = 2 * config.numHiddenLayers * config.numKeyValueHeads * config.headDim * 4;
  return [
    ...sessionParts('writing', session),
    { name: 'keys and values of writing', bytes: perToken * (rows * (capacity + 1) + prompts * promptLength) },
    { name: 'probabilities of writing', bytes: rows * config.vocabSize * 4 },
  ];
}

/** Names of the adapter's weights that a graph reads. */
export const adapterNames = (graph: Graph): string[] =>
  graph.nodes
    .filter(({ op }) => op === 'parameter')
    .map(({ attributes }) => String(attributes['name']))
    .filter((name) => /\.lora_[AB]\.weight$/.test(name));

/** What a reward model takes that reads texts of so many tokens, at most `batch` at once. */
export function judgeParts(config: ModelConfig, batch: number, length: number): MemoryPart[] {
  const { graph } = classifierContext(config);
  const { weights, activations } = inferenceSession(graph, [packedSizes(sequencesAtOnce(batch, length), length)]);
  return [
    { name: 'weights of the reward model', bytes: weights },
    { name: 'activations of the reward model', bytes: activations },
  ];
}
