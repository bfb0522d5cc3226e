import { describe, expect, it } from 'vitest';
import { dpoSection } from '../config/dpo.js';
import { grpoSection } from '../config/grpo.js';
import { loraSection } from '../config/lora.js';
import { pretrainSection } from '../config/pretrain.js';
import { rmSection } from '../config/rm.js';
import { sftSection } from '../config/sft.js';
import { dpoMemory, dpoWays } from '../stages/dpo/memory.js';
import { grpoMemory } from '../stages/grpo/memory.js';
import { pretrainMemory, pretrainWays } from '../stages/pretrain/memory.js';
import { pairsMemory, pairsWays, rmMemory, rmWays } from '../stages/rm/memory.js';
import { sftMemory, sftWays } from '../stages/sft/memory.js';
import { TINY_CLASSIFIER } from '../../tests/support/tiny-encoder.js';
import { TINY } from '../../tests/support/tiny-model.js';
import { overLayers } from './plan.js';

const lora = loraSection.parse({});
const sft = (more: object = {}) => ({ quantization: 'float32' as const, lora, sft: sftSection.parse(more) });

describe('overLayers', () => {
  it('gives what a graph of all the layers gives', () => {
    const many = { ...TINY, numHiddenLayers: 6 };
    const whole = sftMemory({ ...many, numHiddenLayers: 3 }, sft()).bytes;
    const one = whole - sftMemory({ ...many, numHiddenLayers: 2 }, sft()).bytes;
    expect(sftMemory(many, sft()).bytes).toBe(whole + 3 * one);
  });

  it('asks nothing of small models twice', () => {
    const asked: number[] = [];
    overLayers({ numHiddenLayers: 3 }, ({ numHiddenLayers }) => {
      asked.push(numHiddenLayers);
      return [];
    });
    expect(asked).toEqual([3]);
  });
});

describe('a plan', () => {
  it('grows with the batch, the length and the layers of SFT, and shrinks with 8-bit weights', () => {
    const bytes = (more: object, model = TINY): number => sftMemory(model, sft(more)).bytes;
    const base = bytes({});
    expect(bytes({ batchSize: 8 })).toBeGreaterThan(base);
    expect(bytes({ maxLength: 512 })).toBeGreaterThan(base);
    expect(bytes({}, { ...TINY, numHiddenLayers: 8 })).toBeGreaterThan(base);
    const large = { ...TINY, hiddenSize: 512, intermediateSize: 1024, vocabSize: 8192 };
    expect(sftMemory(large, { ...sft(), quantization: 'int8' }).bytes).toBeLessThan(bytes({}, large));
  });

  it('of a reward model shrinks with an adapter, which is offered where all weights learn', () => {
    const large = { ...TINY_CLASSIFIER, hiddenSize: 256, intermediateSize: 1024, vocabSize: 4096 };
    const whole = { rm: rmSection.parse({ batchSize: 1 }) };
    const adapter = { rm: rmSection.parse({ batchSize: 1, lora: { r: 16 } }) };
    const { bytes } = rmMemory(large, adapter);
    expect(bytes).toBeLessThan(rmMemory(large, whole).bytes);
    expect(rmWays(large, whole)).toContainEqual({ settings: ['rm.lora.r=16'], bytes });
    expect(rmWays(large, adapter).flatMap(({ settings }) => settings)).not.toContain('rm.lora.r=16');
  });

  it('names what takes memory, and its parts sum up', () => {
    const rm = { rm: rmSection.parse({}) };
    const grpo = { quantization: 'int8' as const, lora, grpo: grpoSection.parse({}) };
    const dpo = { quantization: 'float32' as const, lora, dpo: dpoSection.parse({}) };
    const pretrain = { pretrain: pretrainSection.parse({}) };
    for (const plan of [
      sftMemory(TINY, sft()),
      rmMemory(TINY_CLASSIFIER, rm),
      pairsMemory(TINY_CLASSIFIER, rm),
      dpoMemory(TINY, dpo),
      pretrainMemory(TINY, pretrain),
      pretrainMemory(TINY_CLASSIFIER, pretrain),
      grpoMemory(TINY, grpo, TINY_CLASSIFIER),
    ]) {
      expect(plan.parts.map(({ name }) => name)).toContain('activations of training');
      expect(plan.bytes).toBe(plan.parts.reduce((sum, part) => sum + part.bytes, 0));
    }
  });

  it('offers only settings that take less', () => {
    const now = sftMemory(TINY, sft()).bytes;
    const ways = sftWays(TINY, sft());
    expect(ways.map(({ settings }) => settings.join(' '))).toContain('sft.batchSize=2 sft.gradientAccumulationSteps=2');
    for (const { bytes } of ways) expect(bytes).toBeLessThan(now);
  });

  it.each([
    ['dpo', { quantization: 'float32' as const, lora, dpo: dpoSection.parse({}) }],
    ['nf4', { quantization: 'nf4' as const, lora, dpo: dpoSection.parse({}) }],
  ])('of %s grows with the batch and the length, and offers to compute blocks again', (_, given) => {
    const now = dpoMemory(TINY, given).bytes;
    for (const more of [{ batchSize: 8 }, { maxLength: 1024 }]) {
      expect(dpoMemory(TINY, { ...given, dpo: { ...given.dpo, ...more } }).bytes).toBeGreaterThan(now);
    }
    expect(dpoWays(TINY, given).map(({ settings }) => settings[0])).toContain('dpo.recompute=true');
    for (const { bytes } of dpoWays(TINY, given)) expect(bytes).toBeLessThan(now);
  });

  it('of pairs grows with their number, and offers fewer', () => {
    const given = { rm: rmSection.parse({ batchSize: 8 }) };
    const now = pairsMemory(TINY_CLASSIFIER, given).bytes;
    expect(pairsMemory(TINY_CLASSIFIER, { rm: { ...given.rm, batchSize: 16 } }).bytes).toBeGreaterThan(now);
    const ways = pairsWays(TINY_CLASSIFIER, given);
    expect(ways.map(({ settings }) => settings[0])).toContain('rm.batchSize=4');
    for (const { bytes } of ways) expect(bytes).toBeLessThan(now);
  });

  it.each([
    ['a writer', TINY],
    ['an encoder', TINY_CLASSIFIER],
  ])('of pretraining %s grows with the batch, and offers smaller ones', (_, model) => {
    const given = { pretrain: pretrainSection.parse({}) };
    const now = pretrainMemory(model, given).bytes;
    const larger = { pretrain: { ...given.pretrain, batchSize: 32 } };
    expect(pretrainMemory(model, larger).bytes).toBeGreaterThan(now);
    const ways = pretrainWays(model, given);
    expect(ways.map(({ settings }) => settings[0])).toContain('pretrain.batchSize=8');
    for (const { bytes } of ways) expect(bytes).toBeLessThan(now);
  });
});
