import { z } from 'zod';
import { key, refuse } from './key.js';
import { checkWarmup, count, share, trainingKeys } from './training.js';

const training = trainingKeys(
  {
    learningRate: 1e-3,
    schedule: 'cosine',
    warmupSteps: 0,
    warmupRatio: 0.05,
    weightDecay: 0.01,
    batchSize: 16,
    epochs: 3,
    loggingSteps: 10,
    evalSteps: 500,
    saveSteps: 500,
  },
  'Texts',
);

/** A base model from scratch: a Qwen3-like causal one, or a DeBERTa-v2-like encoder. */
export const pretrainSection = z
  .strictObject({
    objective: key(
      z.enum(['causal', 'masked']).default('causal'),
      'causal makes a Qwen3-like writer, masked a DeBERTa-v2-like encoder.',
    ),
    tokenizer: key(z.string().min(1).optional(), 'Folder of the tokenizer to use instead of making one.', {
      path: true,
    }),
    vocabSize: key(count(16).default(4096), 'Most entries of the vocabulary that is made.'),
    hiddenSize: key(count(8).default(128), 'Width of the model.'),
    layers: key(count().default(4), 'Transformer blocks.'),
    heads: key(count().default(4), 'Attention heads.'),
    kvHeads: key(count().default(2), 'Heads of keys and values (causal).'),
    headDim: key(count(2).default(32), 'Width of a head (causal).'),
    intermediateSize: key(count().default(384), 'Width of the feed-forward layer.'),
    buckets: key(count(2).default(32), 'Buckets of relative positions (masked).'),
    dropout: key(z.number().min(0).lt(1).default(0.1), 'Dropout of hidden states and attention (masked).'),
    maskProbability: key(share().gt(0).default(0.15), 'Share of tokens to be guessed (masked).'),
    maxLength: key(count(8).default(128), 'Longest text in tokens.'),
    ...training,
  })
  .superRefine((pretrain, context) => {
    checkWarmup(pretrain, context);
    const { objective, hiddenSize, heads, kvHeads, headDim } = pretrain;
    if (objective === 'masked' && hiddenSize % heads !== 0) {
      const fix = 'take a multiple of heads';
      refuse(context, ['hiddenSize'], `is ${hiddenSize}, which ${heads} heads cannot share evenly`, fix);
    }
    if (objective === 'causal' && heads % kvHeads !== 0) {
      const fix = 'take a divisor of heads';
      refuse(context, ['kvHeads'], `is ${kvHeads}, which does not divide the ${heads} heads`, fix);
    }
    if (objective === 'causal' && headDim % 2 !== 0) {
      refuse(context, ['headDim'], `is ${headDim}, but rotary embedding turns pairs`, 'take an even number');
    }
  });
